// SPDX-License-Identifier: Apache-2.0
// Mixing of pairs against plain loops, with odd sizes and an odd number of images.
#include "seer/kernels/mix.hpp"

#include <gtest/gtest.h>

#include "kernel_test.hpp"
#include "seer/base/error.hpp"
#if defined(SEER_KERNELS_CUDA)
#include "both_spaces.hpp"
#endif

namespace seer::kernels {
namespace {

using test::at;
using test::Shape;
using test::Values;

const Shape kShapes[] = {{1, 3, 4, 3}, {2, 1, 1, 3}, {5, 7, 9, 3}, {4, 16, 16, 3}};

TEST(Mix, BlendsNeighbours) {
  for (const auto& s : kShapes) {
    Values x(s, 3, 1);
    const auto before = x.data;
    const std::int64_t image = s.h * s.w * s.c;
    device::Queue queue;
    mix_pairs(queue, x.tensor(), 0.7F);
    for (std::int64_t i = 0; i < s.elems(); ++i) {
      const std::int64_t partner = (i / image ^ 1) < s.n ? (i / image ^ 1) : i / image;
      const double wanted =
          0.7 * static_cast<double>(before[at(i)]) + 0.3 * static_cast<double>(before[at(partner * image + i % image)]);
      ASSERT_NEAR(x.data[at(i)], partner == i / image ? static_cast<double>(before[at(i)]) : wanted, 1e-6) << i;
    }
  }
}

TEST(Mix, ExchangesRectangles) {
  for (const auto& s : kShapes) {
    for (const Box& box :
         {Box{0, 0, s.w, s.h}, Box{s.w / 2, s.h / 3, (s.w + 1) / 2, s.h / 2}, Box{0, 0, 1, 1}, Box{}}) {
      Values x(s, 3, 1);
      const auto before = x.data;
      const std::int64_t image = s.h * s.w * s.c;
      device::Queue queue;
      exchange_boxes(queue, x.tensor(), box);
      for (std::int64_t i = 0; i < s.elems(); ++i) {
        const std::int64_t n = i / image, row = i / (s.w * s.c) % s.h, column = i / s.c % s.w;
        const bool inside = row >= box.top && row < box.top + box.height && column >= box.left &&
                            column < box.left + box.width && (n ^ 1) < s.n;
        ASSERT_EQ(x.data[at(i)], before[at((inside ? n ^ 1 : n) * image + i % image)]) << i;
      }
    }
  }
  Values x(kShapes[0], 3, 1);
  device::Queue queue;
  EXPECT_THROW(exchange_boxes(queue, x.tensor(), {2, 0, 3, 1}), Error);
}

#if defined(SEER_KERNELS_CUDA)
TEST(Mix, OnADeviceAsOnTheHost) {
  SEER_NEEDS_DEVICE();
  for (const auto& s : kShapes) {
    test::expect_same_on_device(1e-6, [&](test::Workspace& w) {
      const Tensor x = w.tensor(Values(s, 3, 1));
      mix_pairs(w.queue, x, 0.7F);
      exchange_boxes(w.queue, x, {0, 0, s.w, (s.h + 1) / 2});
      w.keep("mixed", x);
    });
  }
}
#endif

}  // namespace
}  // namespace seer::kernels
