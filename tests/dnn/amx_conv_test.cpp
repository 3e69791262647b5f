// SPDX-License-Identifier: Apache-2.0
// Our bf16 convolutions for matrix units on every kind of shape that they support, including shapes that the backend
// leaves to oneDNN.
#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <cmath>
#include <vector>

#include "../../src/dnn/amx.hpp"
#include "../../src/dnn/amx_conv.hpp"
#include "naive.hpp"
#include "stored.hpp"

namespace seer::dnn {
namespace {

using naive::Floats;

/// Compares all directions with the definition, over the rounded values.
void expect_exact(const ConvShape& s, int threads = 1) {
  SCOPED_TRACE(testing::Message() << "n " << s.n << " h " << s.h << " w " << s.w << " c " << s.c_in << " -> " << s.c_out
                                  << " groups " << s.groups << " kernel " << s.kernel << " stride " << s.stride
                                  << " pad " << s.pad);
  amx::Conv conv;
  PackedWeights packed;
  const auto type = DType::bf16;
  Stored src(type, naive::random(s.src().elems(), 1)), d_dst(type, naive::random(s.dst().elems(), 2));
  const auto weight = naive::random(s.weight_elems(), 3);
  Stored dst(type, Floats(d_dst.data.size(), NAN)), d_src(type, Floats(src.data.size(), NAN));
  Floats d_weight(weight.size(), NAN);
  // Twice: scratch memory then holds other values, and several threads must find the same bits as one.
  std::vector<std::vector<std::uint16_t>> found;
  std::vector<Floats> found_weights;
  for (int round = 0; round < 2; ++round) {
    omp_set_num_threads(round == 0 ? 1 : threads);
    conv.run(Direction::forward, s, src.data.data(), {weight.data(), 0}, packed, dst.data.data());
    EXPECT_LT(naive::relative_error(dst.values(), naive::forward(s, src.values(), rounded(type, weight))), 0x1p-8);
    conv.run(Direction::backward_data, s, d_dst.data.data(), {weight.data(), 0}, packed, d_src.data.data());
    EXPECT_LT(naive::relative_error(d_src.values(), naive::backward_data(s, d_dst.values(), rounded(type, weight))),
              0x1p-8);
    const auto d_src_once = d_src.values();
    conv.run(Direction::backward_data, s, d_dst.data.data(), {weight.data(), 0}, packed, d_src.data.data(),
             Accumulate::yes);
    naive::Doubles twice;
    for (const float value : d_src_once) twice.push_back(2.0 * static_cast<double>(value));
    EXPECT_LT(naive::relative_error(d_src.values(), twice), 0x1p-7);
    conv.run_weights(s, src.data.data(), d_dst.data.data(), d_weight.data(), Accumulate::no);
    auto expected = naive::backward_weights(s, src.values(), d_dst.values());
    EXPECT_LT(naive::relative_error(d_weight, expected), 1e-6);
    conv.run_weights(s, src.data.data(), d_dst.data.data(), d_weight.data(), Accumulate::yes);
    for (auto& value : expected) value *= 2;
    EXPECT_LT(naive::relative_error(d_weight, expected), 1e-6);
    found.insert(found.end(), {dst.data, d_src.data});
    found_weights.push_back(d_weight);
  }
  omp_set_num_threads(1);
  EXPECT_TRUE(found[0] == found[2] && found[1] == found[3] && found_weights[0] == found_weights[1]);
}

TEST(AmxConv, MatchesTheDefinition) {
  if (!amx::available()) GTEST_SKIP() << "this processor has no matrix units";
  std::int64_t cases = 0;
  for (const auto& [in, out, groups] : {std::array<std::int64_t, 3>{3, 32, 1},
                                        {8, 8, 3},
                                        {16, 16, 2},
                                        {24, 40, 2},
                                        {32, 64, 1},
                                        {33, 17, 2},
                                        {56, 56, 2},
                                        {5, 7, 3},
                                        {96, 48, 1},
                                        {1, 1, 4}}) {
    for (const auto& [kernel, stride, pad] : {std::array<std::int64_t, 3>{1, 1, 0},
                                              {3, 1, 1},
                                              {3, 2, 1},
                                              {1, 2, 0},
                                              {3, 3, 1},
                                              {2, 1, 0},
                                              {5, 2, 2},
                                              {3, 2, 0},
                                              {2, 2, 1},
                                              {4, 1, 3}}) {
      for (const auto& [n, h, w] :
           {std::array<std::int64_t, 3>{1, 7, 5}, {2, 5, 8}, {3, 1, 9}, {1, 19, 3}, {2, 1, 1}}) {
        const ConvShape s{.n = n,
                          .h = h,
                          .w = w,
                          .c_in = in * groups,
                          .c_out = out * groups,
                          .kernel = kernel,
                          .stride = stride,
                          .pad = pad,
                          .groups = groups};
        if (h + 2 * pad < kernel || w + 2 * pad < kernel || !amx::can_run(s, DType::bf16)) continue;
        expect_exact(s);
        ++cases;
      }
    }
  }
  EXPECT_GT(cases, 350);
}

// Large enough for several bands, several parts of the weights, and 1x1 products in place.
TEST(AmxConv, LargeShapesMatchTheDefinition) {
  if (!amx::available()) GTEST_SKIP() << "this processor has no matrix units";
  expect_exact({.n = 2, .h = 61, .w = 40, .c_in = 112, .c_out = 112, .kernel = 3, .stride = 1, .pad = 1, .groups = 2},
               3);
  expect_exact({.n = 2, .h = 61, .w = 83, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 3}, 3);
  expect_exact({.n = 1, .h = 40, .w = 41, .c_in = 64, .c_out = 96}, 3);
  expect_exact({.n = 1, .h = 3, .w = 3, .c_in = 1056, .c_out = 736}, 3);
  expect_exact({.n = 2, .h = 5, .w = 5, .c_in = 746, .c_out = 746, .kernel = 3, .stride = 1, .pad = 1, .groups = 2}, 3);
}

}  // namespace
}  // namespace seer::dnn
