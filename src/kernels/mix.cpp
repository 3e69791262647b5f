// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/mix.hpp"

#include "launch.hpp"

namespace seer::kernels {
namespace {

/// The part of the images of all pairs that changes: `rows` rows of each, `elems` from one row to the next.
struct Pairs {
  float* first;  ///< the part's first element in image 0
  std::int64_t rows, elems, image;
  KOKKOS_FORCEINLINE_FUNCTION float* row(std::int64_t segment) const {
    return first + segment / rows * 2 * image + segment % rows * elems;
  }
};

struct Mixed {
  Pairs pairs;
  float share;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t segment, std::int64_t k) const {
    float* const x = pairs.row(segment) + k;
    const float a = x[0], b = x[pairs.image], rest = 1.0F - share;
    x[0] = share * a + rest * b;
    x[pairs.image] = share * b + rest * a;
  }
};

struct Exchanged {
  Pairs pairs;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t segment, std::int64_t k) const {
    float* const x = pairs.row(segment) + k;
    const float a = x[0];
    x[0] = x[pairs.image];
    x[pairs.image] = a;
  }
};

Pairs pairs_of(const Tensor& images, const Box& box) {
  const auto& s = images.shape;
  ensure(box.left >= 0 && box.top >= 0 && box.left + box.width <= s.w && box.top + box.height <= s.h,
         "a rectangle to mix lies inside the image");
  return {images.f32() + (box.top * s.w + box.left) * s.c, box.height, s.w * s.c, s.h * s.w * s.c};
}

}  // namespace

void mix_pairs(Queue& queue, const Tensor& images, float share) {
  const auto& s = images.shape;
  launch::on_floats(queue, {images}, {2 * images.bytes()}, [&]<class Space>() {
    launch::channels<Space>(queue, "kernels/mix_pairs", s.n / 2 * s.h, s.w * s.c,
                            Mixed{pairs_of(images, {0, 0, s.w, s.h}), share});
  });
}

void exchange_boxes(Queue& queue, const Tensor& images, const Box& box) {
  const auto& s = images.shape;
  if (box.width == 0 || box.height == 0) return;
  launch::on_floats(queue, {images}, {2 * s.n * box.height * box.width * s.c * 4}, [&]<class Space>() {
    launch::channels<Space>(queue, "kernels/exchange_boxes", s.n / 2 * box.height, box.width * s.c,
                            Exchanged{pairs_of(images, box)});
  });
}

}  // namespace seer::kernels
