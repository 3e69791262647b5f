// SPDX-License-Identifier: Apache-2.0
// The product against loops in double precision: all transposes, odd sizes, bias, accumulation.
#include <gtest/gtest.h>

#include <tuple>

#include "naive.hpp"
#include "places.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};
void PrintTo(const Sizes& s, std::ostream* stream) {
  *stream << s.m << "x" << s.n << "x" << s.k;
}

class Gemm : public testing::TestWithParam<std::tuple<Sizes, Transpose, Transpose, Accumulate, bool, Place>> {};

TEST_P(Gemm, MatchesTheDefinition) {
  const auto [sizes, ta, tb, accumulate, with_bias, place] = GetParam();
  SEER_NEEDS_PLACE(place);
  const auto [m, n, k] = sizes;
  const auto a = naive::random(m * k, 1), b = naive::random(k * n, 2), bias = naive::random(n, 3);
  auto c = naive::random(m * n, 4);
  if (accumulate == Accumulate::no) std::fill(c.begin(), c.end(), NAN);
  const auto expected = naive::gemm(m, n, k, a, ta, b, tb, with_bias ? bias : naive::Floats{},
                                    accumulate == Accumulate::yes ? c : naive::Floats{});
  device::Queue queue;
  make_backend(place)->gemm(queue, m, n, k, a.data(), ta, b.data(), tb, c.data(), accumulate,
                            with_bias ? bias.data() : nullptr);
  EXPECT_LT(naive::relative_error(c, expected), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, Gemm,
                         testing::Combine(testing::Values(Sizes{1, 1, 1}, Sizes{1, 13, 7}, Sizes{5, 1, 9},
                                                          Sizes{17, 3, 1}, Sizes{1, 1, 65}, Sizes{33, 47, 19},
                                                          Sizes{64, 16, 373}, Sizes{130, 67, 51}, Sizes{2, 515, 31}),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Accumulate::no, Accumulate::yes), testing::Bool(), kPlaces));

}  // namespace
}  // namespace seer::dnn
