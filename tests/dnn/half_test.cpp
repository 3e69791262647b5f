// SPDX-License-Identifier: Apache-2.0
// Convolutions and products of half-precision tensors against loops in double precision over the rounded values.
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "naive.hpp"
#include "places.hpp"
#include "seer/base/error.hpp"
#include "stored.hpp"

namespace seer::dnn {
namespace {

using naive::Floats;

struct Named {
  const char* name;
  ConvShape shape;
};
void PrintTo(const Named& named, std::ostream* stream) {
  *stream << named.name;
}

const Named kShapes[] = {
    {"stem", {.n = 2, .h = 15, .w = 17, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1}},
    {"pointwise_odd", {.n = 3, .h = 7, .w = 5, .c_in = 24, .c_out = 56}},
    {"pointwise_one_pixel", {.n = 1, .h = 1, .w = 1, .c_in = 373, .c_out = 51}},
    {"pointwise_stride_2", {.n = 2, .h = 7, .w = 5, .c_in = 32, .c_out = 48, .stride = 2}},
    {"groups_of_8", {.n = 2, .h = 7, .w = 5, .c_in = 24, .c_out = 24, .kernel = 3, .pad = 1, .groups = 3}},
    {"groups_of_8_stride_2",
     {.n = 2, .h = 12, .w = 13, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 6}},
    {"groups_of_16", {.n = 1, .h = 9, .w = 6, .c_in = 32, .c_out = 32, .kernel = 3, .pad = 1, .groups = 2}},
    {"groups_of_24_stride_2",
     {.n = 1, .h = 7, .w = 6, .c_in = 72, .c_out = 72, .kernel = 3, .stride = 2, .pad = 1, .groups = 3}},
    {"groups_of_112", {.n = 1, .h = 3, .w = 3, .c_in = 224, .c_out = 224, .kernel = 3, .pad = 1, .groups = 2}},
    {"groups_of_373_stride_2",
     {.n = 2, .h = 4, .w = 3, .c_in = 746, .c_out = 746, .kernel = 3, .stride = 2, .pad = 1, .groups = 2}},
    {"groups_of_7_from_5", {.n = 1, .h = 5, .w = 4, .c_in = 15, .c_out = 21, .kernel = 3, .pad = 1, .groups = 3}},
    {"kernel_5", {.n = 1, .h = 7, .w = 8, .c_in = 16, .c_out = 16, .kernel = 5, .stride = 2, .pad = 2, .groups = 2}},
};

class HalfConv : public testing::TestWithParam<std::tuple<DType, Named, Place>> {
 protected:
  void SetUp() override {
    SEER_NEEDS_PLACE(place);
    backend = make_backend(place);
    if (!backend->supports(type)) GTEST_SKIP() << backend->describe() << " cannot on this processor";
  }
  const DType type = std::get<0>(GetParam());
  const ConvShape& s = std::get<1>(GetParam()).shape;
  const Place place = std::get<2>(GetParam());
  device::Shape src_shape{s.n, s.h, s.w, s.c_in};
  device::Shape dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
  Stored src{type, naive::random(src_shape.elems(), 1)};
  Stored d_dst{type, naive::random(dst_shape.elems(), 2)};
  Floats weight = naive::random(s.weight_elems(), 3);
  // NaN shows elements that are not written.
  Stored dst{type, Floats(static_cast<std::size_t>(dst_shape.elems()), NAN)};
  Stored d_src{type, Floats(static_cast<std::size_t>(src_shape.elems()), NAN)};
  Floats d_weight = Floats(static_cast<std::size_t>(s.weight_elems()), NAN);
  device::Queue queue;
  std::unique_ptr<Backend> backend;

  void backward_weights_match(double tolerance);
};

TEST_P(HalfConv, ForwardMatchesTheDefinition) {
  backend->conv_forward(queue, s, src.tensor(src_shape), {weight.data(), 1}, dst.tensor(dst_shape));
  EXPECT_LT(naive::relative_error(dst.values(), naive::forward(s, src.values(), rounded(type, weight))),
            rounding(type));
}

TEST_P(HalfConv, BackwardDataMatchesTheDefinition) {
  backend->conv_backward_data(queue, s, d_dst.tensor(dst_shape), {weight.data(), 1}, d_src.tensor(src_shape));
  EXPECT_LT(naive::relative_error(d_src.values(), naive::backward_data(s, d_dst.values(), rounded(type, weight))),
            rounding(type));
}

// Float results of rounded inputs. They are not rounded themselves; a device may round them once, if that is allowed.
TEST_P(HalfConv, BackwardWeightsMatchesTheDefinition) {
  for (const bool floats : {true, false}) {
    if (!floats && place == Place::host) continue;
    backend = make_backend(place, floats);
    backward_weights_match(floats ? 1e-5 : rounding(type));
  }
}

void HalfConv::backward_weights_match(double tolerance) {
  std::fill(d_weight.begin(), d_weight.end(), NAN);
  backend->conv_backward_weights(queue, s, src.tensor(src_shape), d_dst.tensor(dst_shape), d_weight.data(),
                                 Accumulate::no);
  const auto expected = naive::backward_weights(s, src.values(), d_dst.values());
  EXPECT_LT(naive::relative_error(d_weight, expected), tolerance);

  d_weight = naive::random(s.weight_elems(), 4);
  auto sum = expected;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(d_weight[i]);
  backend->conv_backward_weights(queue, s, src.tensor(src_shape), d_dst.tensor(dst_shape), d_weight.data(),
                                 Accumulate::yes);
  EXPECT_LT(naive::relative_error(d_weight, sum), tolerance);
}

// The rounded copy of the weights is kept while the version stays and replaced when it changes. The float convolution
// has a copy of its own. Repetitions give the same bits, also in a new backend.
TEST_P(HalfConv, KeepsRoundedWeightsByVersionAndRepeatsTheSameBits) {
  const auto forward = [&](std::uint64_t version) {
    backend->conv_forward(queue, s, src.tensor(src_shape), {weight.data(), version}, dst.tensor(dst_shape));
    return dst.data;
  };
  const auto first = forward(1);
  auto wide_src = src.values();
  Floats wide_dst(static_cast<std::size_t>(dst_shape.elems()));
  backend->conv_forward(queue, s, {wide_src.data(), src_shape}, {weight.data(), 1}, {wide_dst.data(), dst_shape});
  EXPECT_LT(naive::relative_error(wide_dst, naive::forward(s, wide_src, weight)), 1e-5);
  for (float& w : weight) w = -w;
  EXPECT_EQ(forward(1), first) << "the kept copy";
  const auto negative = forward(2);
  EXPECT_NE(negative, first);
  backend = make_backend(place);
  EXPECT_EQ(forward(2), negative);
}

const auto kTypes = testing::Values(DType::bf16, DType::f16);
const char* name_of(DType type) {
  return type == DType::bf16 ? "bf16" : "f16";
}
INSTANTIATE_TEST_SUITE_P(Shapes, HalfConv, testing::Combine(kTypes, testing::ValuesIn(kShapes), kPlaces),
                         [](const auto& test) {
                           return std::string(name_of(std::get<0>(test.param))) + "_" + std::get<1>(test.param).name +
                                  "_" + name(std::get<2>(test.param));
                         });

struct Sizes {
  std::int64_t m, n, k;
};
void PrintTo(const Sizes& s, std::ostream* stream) {
  *stream << s.m << "x" << s.n << "x" << s.k;
}

class HalfGemm
    : public testing::TestWithParam<std::tuple<DType, Sizes, Transpose, Transpose, Accumulate, bool, Place>> {};

TEST_P(HalfGemm, MatchesTheDefinition) {
  const auto [type, sizes, ta, tb, accumulate, with_bias, place] = GetParam();
  const auto [m, n, k] = sizes;
  SEER_NEEDS_PLACE(place);
  const auto backend = make_backend(place);
  if (!backend->supports(type)) GTEST_SKIP() << backend->describe() << " cannot on this processor";
  Stored stored_a(type, naive::random(m * k, 1)), stored_b(type, naive::random(k * n, 2));
  const auto a = stored_a.values(), b = stored_b.values(), bias = naive::random(n, 3);
  const auto start = accumulate == Accumulate::no ? Floats(naive::at(m * n), NAN) : naive::random(m * n, 4);
  const auto expected =
      naive::gemm(m, n, k, a, ta, b, tb, with_bias ? bias : Floats{}, accumulate == Accumulate::yes ? start : Floats{});
  device::Queue queue;
  Floats first;
  for (int round = 0; round < 2; ++round) {  // the first call makes the plan, the second uses it
    auto c = start;
    backend->gemm(queue, m, n, k, type, stored_a.data.data(), ta, stored_b.data.data(), tb, c.data(), accumulate,
                  with_bias ? bias.data() : nullptr);
    EXPECT_LT(naive::relative_error(c, expected), 1e-5);
    if (round == 0) first = c;
    EXPECT_EQ(c, first);
  }
}

INSTANTIATE_TEST_SUITE_P(All, HalfGemm,
                         testing::Combine(kTypes,
                                          testing::Values(Sizes{1, 1, 1}, Sizes{1, 13, 7}, Sizes{5, 1, 9},
                                                          Sizes{17, 3, 1}, Sizes{33, 47, 19}, Sizes{64, 16, 373},
                                                          Sizes{130, 67, 51}),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Accumulate::no, Accumulate::yes), testing::Bool(), kPlaces));

class Half : public testing::TestWithParam<Place> {};
INSTANTIATE_TEST_SUITE_P(Places, Half, kPlaces, [](const auto& tested) { return name(tested.param); });

TEST_P(Half, FloatIsAlwaysSupportedAndBytesNever) {
  SEER_NEEDS_PLACE(GetParam());
  const auto backend = make_backend(GetParam());
  EXPECT_TRUE(backend->supports(DType::f32));
  EXPECT_FALSE(backend->supports(DType::u8));
}

TEST_P(Half, TensorsOfDifferentTypesAreRefused) {
  SEER_NEEDS_PLACE(GetParam());
  const auto backend = make_backend(GetParam());
  device::Queue queue;
  Floats values(64);
  const ConvShape s{.n = 1, .h = 2, .w = 2, .c_in = 4, .c_out = 4};
  const device::Tensor wide{values.data(), {1, 2, 2, 4}}, half{values.data(), {1, 2, 2, 4}, DType::bf16};
  EXPECT_THROW(backend->conv_forward(queue, s, wide, {values.data(), 0}, half), Error);
  EXPECT_THROW(backend->conv_backward_data(queue, s, half, {values.data(), 0}, wide), Error);
  EXPECT_THROW(backend->conv_backward_weights(queue, s, half, wide, values.data(), Accumulate::no), Error);
}

}  // namespace
}  // namespace seer::dnn
