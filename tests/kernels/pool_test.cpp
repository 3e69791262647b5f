// SPDX-License-Identifier: Apache-2.0
// Max pooling against plain loops, odd sizes, in all types; each gradient goes to one pixel.
#include "seer/kernels/pool.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "kernel_test.hpp"
#include "seer/kernels/activation.hpp"
#if defined(SEER_KERNELS_CUDA)
#include "both_spaces.hpp"
#endif

namespace seer::kernels {
namespace {

using test::at;
using test::Shape;
using test::Values;

const Shape kShapes[] = {{1, 1, 1, 3}, {2, 5, 8, 7}, {3, 6, 1, 16}, {1, 9, 9, 33}};

TEST(MaxPool, ForwardAndBackwardMatchLoops) {
  for (const auto& s : kShapes) {
    SCOPED_TRACE(std::to_string(s.h) + " x " + std::to_string(s.w));
    const Shape out{s.n, max_pooled(s.h), max_pooled(s.w), s.c};
    EXPECT_EQ(out.h, (s.h + 2 - 3) / 2 + 1);
    Values x(s, 3, 1), d_pooled(out, 4, 1);
    std::vector<float> pooled(at(out.elems())), d_x(at(s.elems()), 7.0F);
    std::vector<std::uint8_t> places(pooled.size());
    device::Queue queue;
    max_pool(queue, {x.data.data(), s}, {pooled.data(), out}, places.data());
    max_pool_backward(queue, {d_pooled.data.data(), out}, places.data(), {d_x.data(), s});
    std::vector<float> wanted(d_x.size(), 0.0F);
    for (std::int64_t n = 0; n < s.n; ++n) {
      for (std::int64_t i = 0; i < out.h * out.w * s.c; ++i) {
        const std::int64_t row = i / (out.w * s.c), column = i / s.c % out.w, c = i % s.c;
        float most = -std::numeric_limits<float>::infinity();
        std::int64_t from = -1;
        for (std::int64_t y = 2 * row - 1; y <= 2 * row + 1; ++y) {
          for (std::int64_t z = 2 * column - 1; z <= 2 * column + 1; ++z) {
            if (y < 0 || z < 0 || y >= s.h || z >= s.w) continue;
            const auto place = ((n * s.h + y) * s.w + z) * s.c + c;
            if (x.data[at(place)] > most) {
              most = x.data[at(place)];
              from = place;
            }
          }
        }
        EXPECT_EQ(pooled[at(n * out.h * out.w * s.c + i)], most);
        wanted[at(from)] += d_pooled.data[at(n * out.h * out.w * s.c + i)];
      }
    }
    for (std::size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(d_x[i], wanted[i], 1e-6);
  }
}

#if defined(SEER_KERNELS_CUDA)
TEST(MaxPool, OnADeviceAsOnTheHost) {
  SEER_NEEDS_DEVICE();
  for (const auto type : {DType::f32, DType::bf16}) {
    for (const auto& s : kShapes) {
      const Shape out{s.n, max_pooled(s.h), max_pooled(s.w), s.c};
      test::expect_same_on_device(1e-6, [&](test::Workspace& w) {
        const Tensor x = w.tensor(Values(s, 3, 1), type), pooled = w.tensor(out, type), d_x = w.tensor(s, type);
        auto* const places = w.room<std::uint8_t>(at(out.elems()));
        max_pool(w.queue, x, pooled, places);
        w.keep("pooled", pooled);
        max_pool_backward(w.queue, w.tensor(Values(out, 4, 1), type), places, d_x);
        w.keep("gradient", d_x);
      });
    }
  }
}
#endif

}  // namespace
}  // namespace seer::kernels
