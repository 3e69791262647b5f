// SPDX-License-Identifier: Apache-2.0
// Our own kernels on every kind of shape that they support, including shapes that the backend leaves to oneDNN.
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "../../src/dnn/direct_conv.hpp"
#include "naive.hpp"

namespace seer::dnn {
namespace {

using naive::Floats;

TEST(DirectConv, MatchesTheDefinition) {
  if (!direct::can_run({.n = 1, .h = 3, .w = 3, .c_in = 8, .c_out = 8, .kernel = 3, .stride = 1, .pad = 1})) {
    SUCCEED() << "built for a processor without 256-bit vectors: oneDNN runs everything";
    return;
  }
  direct::Conv conv;
  PackedWeights packed;
  std::int64_t cases = 0;
  for (const std::int64_t width : {8, 16, 24, 40, 56, 72}) {
    for (const std::int64_t groups : {1, 2, 11}) {
      if (width * groups > 160) continue;
      for (const auto& [kernel, stride, pad] :
           {std::array<std::int64_t, 3>{3, 1, 1}, {3, 2, 1}, {3, 3, 1}, {2, 1, 0}, {5, 2, 2}, {3, 2, 0}, {2, 2, 1}}) {
        for (const auto& [n, h, w] : {std::array<std::int64_t, 3>{1, 7, 5}, {2, 5, 8}, {1, 3, 31}, {1, 19, 3}}) {
          const ConvShape s{.n = n,
                            .h = h,
                            .w = w,
                            .c_in = width * groups,
                            .c_out = width * groups * (kernel == 2 ? 2 : 1),
                            .kernel = kernel,
                            .stride = stride,
                            .pad = pad,
                            .groups = groups};
          if (s.h + 2 * pad < kernel || s.w + 2 * pad < kernel) continue;
          ASSERT_TRUE(direct::can_run(s));
          SCOPED_TRACE(testing::Message() << "n " << n << " h " << h << " w " << w << " width " << width << " groups "
                                          << groups << " kernel " << kernel << " stride " << stride << " pad " << pad);
          const auto src = naive::random(n * h * w * s.c_in, 1);
          const auto d_dst = naive::random(n * s.out_h() * s.out_w() * s.c_out, 2);
          const auto weight = naive::random(s.weight_elems(), 3);
          Floats dst(d_dst.size(), NAN), d_src(src.size(), NAN), d_weight(weight.size(), NAN);
          conv.run(Direction::forward, s, src.data(), {weight.data(), 0}, packed, dst.data());
          EXPECT_LT(naive::relative_error(dst, naive::forward(s, src, weight)), 1e-6);
          conv.run(Direction::backward_data, s, d_dst.data(), {weight.data(), 0}, packed, d_src.data());
          EXPECT_LT(naive::relative_error(d_src, naive::backward_data(s, d_dst, weight)), 1e-6);
          conv.run_weights(s, src.data(), d_dst.data(), d_weight.data(), Accumulate::no);
          auto expected = naive::backward_weights(s, src, d_dst);
          EXPECT_LT(naive::relative_error(d_weight, expected), 1e-6);
          conv.run_weights(s, src.data(), d_dst.data(), d_weight.data(), Accumulate::yes);
          for (auto& value : expected) value *= 2;
          EXPECT_LT(naive::relative_error(d_weight, expected), 1e-6);
          ++cases;
        }
      }
    }
  }
  EXPECT_GT(cases, 250);
}

// Large enough that an image is cut into bands and the next band is prefetched.
TEST(DirectConv, BandsMatchTheDefinition) {
  direct::Conv conv;
  PackedWeights packed;
  for (const std::int64_t stride : {1, 2}) {
    for (const std::int64_t width : {8, 56}) {
      const ConvShape s{.n = 2,
                        .h = 61,
                        .w = width == 8 ? 83 : 40,
                        .c_in = 112,
                        .c_out = 112,
                        .kernel = 3,
                        .stride = stride,
                        .pad = 1,
                        .groups = 112 / width};
      if (!direct::can_run(s)) continue;
      SCOPED_TRACE(testing::Message() << "stride " << stride << " width " << width);
      const auto src = naive::random(s.n * s.h * s.w * s.c_in, 1);
      const auto d_dst = naive::random(s.n * s.out_h() * s.out_w() * s.c_out, 2);
      const auto weight = naive::random(s.weight_elems(), 3);
      Floats dst(d_dst.size(), NAN), d_src(src.size(), NAN), d_weight(weight.size(), NAN);
      conv.run(Direction::forward, s, src.data(), {weight.data(), 0}, packed, dst.data());
      EXPECT_LT(naive::relative_error(dst, naive::forward(s, src, weight)), 1e-6);
      conv.run(Direction::backward_data, s, d_dst.data(), {weight.data(), 0}, packed, d_src.data());
      EXPECT_LT(naive::relative_error(d_src, naive::backward_data(s, d_dst, weight)), 1e-6);
      conv.run_weights(s, src.data(), d_dst.data(), d_weight.data(), Accumulate::no);
      EXPECT_LT(naive::relative_error(d_weight, naive::backward_weights(s, src, d_dst)), 1e-6);
    }
  }
}

}  // namespace
}  // namespace seer::dnn
