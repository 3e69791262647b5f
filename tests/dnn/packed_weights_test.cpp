// SPDX-License-Identifier: Apache-2.0
// Packed copies of weights: reused while the version stays, renewed when it changes, never kept for version 0.
#include <gtest/gtest.h>

#include <tuple>

#include "naive.hpp"
#include "places.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {
namespace {

using naive::Floats;

class PackedWeights : public testing::TestWithParam<std::tuple<std::int64_t, Place>> {
 protected:
  void SetUp() override {
    SEER_NEEDS_PLACE(place);
    backend = make_backend(place);
  }
  const std::int64_t groups = std::get<0>(GetParam());
  const Place place = std::get<1>(GetParam());
  // Pointwise and grouped convolutions use different code, so the number of groups is the parameter.
  ConvShape s{.n = 1,
              .h = 6,
              .w = 5,
              .c_in = 48,
              .c_out = 48,
              .kernel = groups == 1 ? 1 : 3,
              .stride = 1,
              .pad = groups == 1 ? 0 : 1,
              .groups = groups};
  device::Shape shape{1, 6, 5, 48};
  Floats src = naive::random(shape.elems(), 1), weight = naive::random(s.weight_elems(), 2);
  Floats dst = Floats(src.size());
  device::Queue queue;
  std::unique_ptr<Backend> backend;
  /// The device uses float weights of 1x1 convolutions in place.
  bool copies() const { return place == Place::host || groups > 1; }

  double forward_error(const Floats& expected_weight, std::uint64_t version) {
    backend->conv_forward(queue, s, {src.data(), shape}, {weight.data(), version}, {dst.data(), shape});
    return naive::relative_error(dst, naive::forward(s, src, expected_weight));
  }
  double backward_error(const Floats& expected_weight, std::uint64_t version) {
    backend->conv_backward_data(queue, s, {src.data(), shape}, {weight.data(), version}, {dst.data(), shape});
    return naive::relative_error(dst, naive::backward_data(s, src, expected_weight));
  }
  void change_weights() {
    for (auto& value : weight) value = -2 * value + 0.25F;
  }
};

TEST_P(PackedWeights, NewVersionIsSeen) {
  for (std::uint64_t version = 1; version < 4; ++version) {
    EXPECT_LT(forward_error(weight, version), 1e-5);
    EXPECT_LT(backward_error(weight, version), 1e-5);
    change_weights();
  }
  // An older number is a change as well.
  EXPECT_LT(forward_error(weight, 1), 1e-5);
}

TEST_P(PackedWeights, SameVersionIsNotPackedAgain) {
  if (!copies()) return;
  EXPECT_LT(forward_error(weight, 7), 1e-5);
  const auto old = weight;
  change_weights();
  EXPECT_LT(forward_error(old, 7), 1e-5) << "the kept copy was not used";
}

TEST_P(PackedWeights, VersionZeroIsNeverKept) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_LT(forward_error(weight, 0), 1e-5);
    EXPECT_LT(backward_error(weight, 0), 1e-5);
    change_weights();
  }
}

TEST_P(PackedWeights, LimitIsKept) {
  backend->set_packed_weights_limit(0);
  EXPECT_LT(forward_error(weight, 7), 1e-5);
  change_weights();
  EXPECT_LT(forward_error(weight, 7), 1e-5) << "a copy was kept though the limit is 0";
  backend->set_packed_weights_limit(1 << 20);
  EXPECT_LT(forward_error(weight, 7), 1e-5);
  const auto with_copy = backend->held_bytes();
  backend->set_packed_weights_limit(16);
  if (copies()) {
    EXPECT_LT(backend->held_bytes(), with_copy);
  }
  EXPECT_LT(forward_error(weight, 7), 1e-5);
}

TEST_P(PackedWeights, RenewalTakesNoMoreMemory) {
  forward_error(weight, 1);
  backward_error(weight, 1);
  const auto held = backend->held_bytes();
  for (std::uint64_t version = 2; version < 6; ++version) {
    change_weights();
    forward_error(weight, version);
    backward_error(weight, version);
  }
  EXPECT_EQ(backend->held_bytes(), held);
}

INSTANTIATE_TEST_SUITE_P(Groups, PackedWeights, testing::Combine(testing::Values(1, 2, 3, 6), kPlaces));

// The limit that training gives to the device's back end, without a device.
TEST(PackedWeightBytes, CountPaddedCopiesAndNoneOfWeightsInPlace) {
  const ConvShape pointwise{.n = 64, .h = 7, .w = 7, .c_in = 48, .c_out = 24};
  EXPECT_EQ(packed_weight_bytes(pointwise, DType::f32), 0U);
  EXPECT_EQ(packed_weight_bytes(pointwise, DType::bf16), 48U * 24 * 2);
  const ConvShape grouped{.c_in = 48, .c_out = 96, .kernel = 3, .pad = 1, .groups = 2};
  EXPECT_EQ(packed_weight_bytes(grouped, DType::f32), 96U * 24 * 9 * 4);
  EXPECT_EQ(packed_weight_bytes(grouped, DType::f16), 96U * 24 * 9 * 2);
  // Groups of 373 become groups of 376; the copy that is not padded may be needed as well.
  const ConvShape odd{.c_in = 746, .c_out = 746, .kernel = 3, .pad = 1, .groups = 2};
  EXPECT_EQ(packed_weight_bytes(odd, DType::f32), 746U * 373 * 9 * 4);
  EXPECT_EQ(packed_weight_bytes(odd, DType::bf16), (746U * 373 + 752U * 376) * 9 * 2);
}

}  // namespace
}  // namespace seer::dnn
