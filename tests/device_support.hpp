// SPDX-License-Identifier: Apache-2.0
// For tests that need a device. Where there is none they say so by name and are skipped: a test that was not run must
// not look like one that passed.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "seer/device/binding.hpp"
#include "seer/device/session.hpp"
#if defined(SEER_CUDA)
#include <cuda_runtime_api.h>
#endif

namespace seer::test {

/// Why no device can be used here; "" where one can.
inline std::string no_device() {
#if defined(SEER_CUDA)
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return "";
  cudaGetLastError();  // else the next call that looks for an error would find this one
  const std::string words = status == cudaSuccess ? "0 devices" : cudaGetErrorString(status);
  return "not run: no device here (cudaGetDeviceCount: " + words + ")";
#else
  return "not run: this is a host build";
#endif
}

}  // namespace seer::test

/// First line of a test (or of a fixture's SetUp).
#define SEER_NEEDS_DEVICE()                                                                                         \
  do {                                                                                                              \
    if (const std::string seer_reason = seer::test::no_device(); !seer_reason.empty()) GTEST_SKIP() << seer_reason; \
  } while (false)

/// The same for tests of kernels on the host: a Kokkos made for a device does not start without one.
#define SEER_NEEDS_KERNELS()                                                                         \
  do {                                                                                               \
    if (seer::device::kernels_need_device() && seer::device::bound_device() < 0)                     \
      GTEST_SKIP() << "not run: no device here, and this build's Kokkos does not start without one"; \
  } while (false)
