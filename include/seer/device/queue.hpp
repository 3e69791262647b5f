// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "seer/device/tensor.hpp"

namespace seer::device {

/// An execution queue: the order in which kernels and library calls run. On the host every call has finished when it
/// returns; a device queue is a stream. Passed explicitly, never a global default.
struct Queue {
  Space space = Space::host;
  void* stream = nullptr;
  void wait() const {}
};

}  // namespace seer::device
