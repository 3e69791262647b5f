// SPDX-License-Identifier: Apache-2.0
// For suites that train on a device: a real one in device builds, in host builds the stand-in (device/stand_in.hpp),
// which must give the host's bits.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "device_support.hpp"
#include "golden.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/session.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::test {

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
#if defined(SEER_CUDA)
    SEER_NEEDS_DEVICE();
    if (!device::kernels_need_device()) GTEST_SKIP() << "not run: this build's Kokkos has no Cuda";
    try {
      device::DeviceQueue own;
      comm::BlockCommunicator tried(comm::Communicator::world(), own.queue());
    } catch (const Error& error) {
      if (!error.agreed()) throw;
      GTEST_SKIP() << "not run: " << error.message();
    }
#endif
  }

  /// Of the host's numbers: the same bits on the stand-in; on a device within `tolerance` of their length.
  static void expect_near(const std::vector<float>& found, const std::vector<float>& host, double tolerance,
                          const std::string& what) {
    ASSERT_EQ(found.size(), host.size()) << what;
#if defined(SEER_CUDA)
    EXPECT_LT(relative_error(found, std::vector<double>(host.begin(), host.end())), tolerance) << what;
#else
    EXPECT_TRUE(std::equal(found.begin(), found.end(), host.begin()))
        << what << ": other bits, off by " << relative_error(found, host) << " of " << tolerance;
#endif
  }

 private:
#if !defined(SEER_CUDA)
  const device::StandIn stand_in_;
#endif
};

}  // namespace seer::test
