// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "seer/base/error.hpp"
#include "seer/train/compute.hpp"

namespace seer::train {
namespace {

TEST(AutoPrecision, TakesBf16WhereMatrixUnitsMakeItFaster) {
  EXPECT_EQ(why_not_bf16({.matrix_units = true, .name = "a Xeon"}), "");
  EXPECT_EQ(why_not_bf16({.matrix_units = false, .name = "an EPYC"}), "an EPYC has no matrix units for bf16 (AMX)");
  Capabilities device{.space = device::Space::device, .compute_capability = 90, .name = "the device"};
  EXPECT_EQ(why_not_bf16(device), "");
  device.compute_capability = 80;
  EXPECT_EQ(why_not_bf16(device), "");
  device.compute_capability = 75;
  device.matrix_units = true;  // of its host
  EXPECT_EQ(why_not_bf16(device), "the device has compute capability 7.5, and bf16 needs 8.0");
  device.compute_capability = 0;  // the stand-in
  EXPECT_EQ(why_not_bf16(device), "");
}

TEST(AutoPrecision, MustBeSettledBeforeAnythingComputes) {
  EXPECT_THROW(compute_type({.compute = "auto"}), Error);
}

}  // namespace
}  // namespace seer::train
