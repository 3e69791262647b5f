// SPDX-License-Identifier: Apache-2.0
// The three directions of a convolution against loops in double precision (naive.hpp).
#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "naive.hpp"
#include "places.hpp"
#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {
namespace {

using naive::Floats;
constexpr double kTolerance = 1e-5;

device::Tensor tensor(Floats& values, device::Shape shape) {
  return {values.data(), shape};
}

struct Named {
  const char* name;
  ConvShape shape;
};

void PrintTo(const Named& named, std::ostream* stream) {
  *stream << named.name;
}

ConvShape make(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c_in, std::int64_t c_out,
               std::int64_t kernel, std::int64_t stride, std::int64_t groups) {
  return {.n = n,
          .h = h,
          .w = w,
          .c_in = c_in,
          .c_out = c_out,
          .kernel = kernel,
          .stride = stride,
          .pad = kernel / 2,
          .groups = groups};
}

class Conv : public testing::TestWithParam<std::tuple<Named, Place>> {
 protected:
  void SetUp() override {
    SEER_NEEDS_PLACE(place);
    backend = make_backend(place);
  }
  const ConvShape& s = std::get<0>(GetParam()).shape;
  const Place place = std::get<1>(GetParam());
  device::Shape src_shape{s.n, s.h, s.w, s.c_in};
  device::Shape dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
  Floats src = naive::random(src_shape.elems(), 1);
  Floats d_dst = naive::random(dst_shape.elems(), 2);
  Floats weight = naive::random(s.weight_elems(), 3);
  // NaN shows elements that are not written.
  Floats dst = Floats(static_cast<std::size_t>(dst_shape.elems()), NAN);
  Floats d_src = Floats(static_cast<std::size_t>(src_shape.elems()), NAN);
  Floats d_weight = Floats(static_cast<std::size_t>(s.weight_elems()), NAN);
  device::Queue queue;
  std::unique_ptr<Backend> backend;
};

TEST_P(Conv, ForwardMatchesTheDefinition) {
  backend->conv_forward(queue, s, tensor(src, src_shape), {weight.data(), 1}, tensor(dst, dst_shape));
  EXPECT_LT(naive::relative_error(dst, naive::forward(s, src, weight)), kTolerance);
}

TEST_P(Conv, BackwardDataMatchesTheDefinition) {
  backend->conv_backward_data(queue, s, tensor(d_dst, dst_shape), {weight.data(), 1}, tensor(d_src, src_shape));
  EXPECT_LT(naive::relative_error(d_src, naive::backward_data(s, d_dst, weight)), kTolerance);
}

TEST_P(Conv, BackwardDataAdds) {
  if (!backend->can_add(s, DType::f32)) GTEST_SKIP() << "adds in a pass of its own";
  d_src = naive::random(src_shape.elems(), 4);
  auto sum = naive::backward_data(s, d_dst, weight);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(d_src[i]);
  backend->conv_backward_data(queue, s, tensor(d_dst, dst_shape), {weight.data(), 1}, tensor(d_src, src_shape),
                              Accumulate::yes);
  EXPECT_LT(naive::relative_error(d_src, sum), kTolerance);
}

TEST_P(Conv, BackwardWeightsMatchesTheDefinition) {
  backend->conv_backward_weights(queue, s, tensor(src, src_shape), tensor(d_dst, dst_shape), d_weight.data(),
                                 Accumulate::no);
  const auto expected = naive::backward_weights(s, src, d_dst);
  EXPECT_LT(naive::relative_error(d_weight, expected), kTolerance);

  d_weight = naive::random(s.weight_elems(), 4);
  auto sum = expected;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(d_weight[i]);
  backend->conv_backward_weights(queue, s, tensor(src, src_shape), tensor(d_dst, dst_shape), d_weight.data(),
                                 Accumulate::yes);
  EXPECT_LT(naive::relative_error(d_weight, sum), kTolerance);
}

// A second run gives the same bits, in the same backend and in a new one.
TEST_P(Conv, RepeatsTheSameBits) {
  std::vector<Floats> first;
  for (int round = 0; round < 3; ++round) {
    if (round == 2) backend = make_backend(place);
    backend->conv_forward(queue, s, tensor(src, src_shape), {weight.data(), 0}, tensor(dst, dst_shape));
    backend->conv_backward_data(queue, s, tensor(d_dst, dst_shape), {weight.data(), 0}, tensor(d_src, src_shape));
    backend->conv_backward_weights(queue, s, tensor(src, src_shape), tensor(d_dst, dst_shape), d_weight.data(),
                                   Accumulate::no);
    if (round == 0) first = {dst, d_src, d_weight};
    EXPECT_TRUE(dst == first[0] && d_src == first[1] && d_weight == first[2]) << "round " << round;
  }
}

const Named kShapes[] = {
    {"stem_3_to_32", make(2, 15, 17, 3, 32, 3, 2, 1)},
    {"stem_even", make(1, 32, 32, 3, 32, 3, 2, 1)},
    {"pointwise_odd", make(3, 7, 5, 24, 56, 1, 1, 1)},
    {"pointwise_one_pixel", make(1, 1, 1, 373, 51, 1, 1, 1)},
    {"pointwise_3_to_8", make(1, 7, 5, 3, 8, 1, 1, 1)},
    {"pointwise_stride_2_odd", make(2, 7, 5, 32, 48, 1, 2, 1)},
    {"pointwise_stride_2_even", make(1, 8, 6, 24, 104, 1, 2, 1)},
    {"pointwise_wide", make(1, 3, 3, 746, 373, 1, 1, 1)},
    {"groups_of_8", make(2, 7, 5, 24, 24, 3, 1, 3)},
    {"groups_of_8_stride_2_odd", make(2, 7, 5, 48, 48, 3, 2, 6)},
    {"groups_of_8_stride_2_even", make(2, 12, 14, 16, 16, 3, 2, 2)},
    {"groups_of_8_one_pixel", make(1, 1, 1, 16, 16, 3, 1, 2)},
    {"groups_of_8_one_pixel_stride_2", make(1, 1, 1, 16, 16, 3, 2, 2)},
    {"groups_of_8_row", make(1, 1, 9, 16, 16, 3, 2, 2)},
    {"groups_of_8_wide_image", make(1, 45, 63, 16, 16, 3, 1, 2)},
    {"groups_of_8_wide_image_stride_2", make(1, 45, 62, 16, 16, 3, 2, 2)},
    {"groups_of_16", make(1, 9, 6, 32, 32, 3, 1, 2)},
    {"groups_of_16_stride_2", make(2, 6, 9, 48, 48, 3, 2, 3)},
    {"groups_of_24", make(2, 7, 5, 48, 48, 3, 1, 2)},
    {"groups_of_24_stride_2", make(1, 7, 6, 72, 72, 3, 2, 3)},
    {"groups_of_56", make(1, 7, 5, 112, 112, 3, 1, 2)},
    {"groups_of_56_stride_2", make(2, 9, 7, 112, 112, 3, 2, 2)},
    {"groups_of_64", make(1, 6, 5, 128, 128, 3, 1, 2)},
    {"groups_of_72_stride_2", make(1, 6, 5, 144, 144, 3, 2, 2)},
    {"groups_of_112", make(1, 3, 3, 224, 224, 3, 1, 2)},
    {"one_group_of_8", make(1, 5, 5, 8, 8, 3, 1, 1)},
    {"groups_of_373", make(1, 3, 4, 746, 746, 3, 1, 2)},
    {"groups_of_373_stride_2", make(2, 4, 3, 746, 746, 3, 2, 2)},
    {"groups_of_7_from_5", make(1, 5, 4, 15, 21, 3, 1, 3)},
    {"kernel_5_groups_of_8", make(1, 7, 8, 16, 16, 5, 2, 2)},
};
INSTANTIATE_TEST_SUITE_P(Shapes, Conv, testing::Combine(testing::ValuesIn(kShapes), kPlaces), [](const auto& tested) {
  return std::get<0>(tested.param).name + ("_" + name(std::get<1>(tested.param)));
});

class ConvGradient : public testing::TestWithParam<Place> {};
class ConvErrors : public testing::TestWithParam<Place> {};
INSTANTIATE_TEST_SUITE_P(Places, ConvGradient, kPlaces, [](const auto& tested) { return name(tested.param); });
INSTANTIATE_TEST_SUITE_P(Places, ConvErrors, kPlaces, [](const auto& tested) { return name(tested.param); });

// Central differences of f = sum(dst * d_dst), which is linear in each argument: exact up to rounding.
TEST_P(ConvGradient, AgreesWithFiniteDifferences) {
  SEER_NEEDS_PLACE(GetParam());
  const auto s = make(2, 5, 4, 16, 16, 3, 2, 2);
  device::Queue queue;
  const auto backend = make_backend(GetParam());
  const device::Shape src_shape{s.n, s.h, s.w, s.c_in}, dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
  auto src = naive::random(src_shape.elems(), 1), d_dst = naive::random(dst_shape.elems(), 2);
  auto weight = naive::random(s.weight_elems(), 3);
  Floats dst(static_cast<std::size_t>(dst_shape.elems())), d_src(src.size()), d_weight(weight.size());
  const auto f = [&] {
    backend->conv_forward(queue, s, tensor(src, src_shape), {weight.data(), 0}, tensor(dst, dst_shape));
    double sum = 0;
    for (std::size_t i = 0; i < dst.size(); ++i) sum += static_cast<double>(dst[i]) * static_cast<double>(d_dst[i]);
    return sum;
  };
  backend->conv_backward_data(queue, s, tensor(d_dst, dst_shape), {weight.data(), 0}, tensor(d_src, src_shape));
  backend->conv_backward_weights(queue, s, tensor(src, src_shape), tensor(d_dst, dst_shape), d_weight.data(),
                                 Accumulate::no);
  const auto check = [&](Floats& values, const Floats& gradient, const char* what) {
    for (std::size_t i = 0; i < values.size(); i += 37) {
      const float kept = values[i];
      values[i] = kept + 0.5F;
      const double above = f();
      values[i] = kept - 0.5F;
      const double below = f();
      values[i] = kept;
      EXPECT_NEAR(above - below, static_cast<double>(gradient[i]), 2e-4) << what << " " << i;
    }
  };
  check(src, d_src, "src");
  check(weight, d_weight, "weight");
}

TEST_P(ConvErrors, WrongShapeIsRefused) {
  SEER_NEEDS_PLACE(GetParam());
  const auto backend = make_backend(GetParam());
  device::Queue queue;
  Floats values(64);
  const auto s = make(1, 2, 2, 4, 4, 1, 1, 1);
  EXPECT_THROW(
      backend->conv_forward(queue, s, tensor(values, {1, 2, 2, 3}), {values.data(), 0}, tensor(values, {1, 2, 2, 4})),
      Error);
}

TEST_P(ConvErrors, LibraryStatusAndShapeAreNamed) {
  SEER_NEEDS_PLACE(GetParam());
  const auto backend = make_backend(GetParam());
  device::Queue queue;
  Floats values(1024);
  auto s = make(1, 2, 2, 4, 4, 3, 1, 1);
  s.groups = 3;  // does not divide the channels
  try {
    backend->conv_forward(queue, s, tensor(values, {1, 2, 2, 4}), {values.data(), 0}, tensor(values, {1, 2, 2, 4}));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_NE(error.message().find("groups 3"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("channels 4 -> 4"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace seer::dnn
