// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "seer/device/ledger.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// An execution queue: kernels and library calls run in its order. On the host every call has finished when it returns;
/// a device queue is a stream; a planned queue records in its ledger. Passed explicitly, never a global default.
struct Queue {
  Space space = Space::host;
  void* stream = nullptr;
  Ledger* ledger = nullptr;

  static Queue planned(Ledger& ledger) { return {.space = Space::planned, .ledger = &ledger}; }
  /// A planned queue, or the host's queue if there is no ledger.
  static Queue of(Ledger* ledger) { return ledger != nullptr ? planned(*ledger) : Queue{}; }
  /// On a planned machine, records the bytes that a kernel would read and write and its launches on a device, and
  /// returns true: the kernel must not run. Launchers call it (kernels/launch.hpp).
  bool only_plans(std::int64_t bytes, DType dtype = DType::f32, int launches = 1) const {
    if (space != Space::planned) return false;
    ledger->work({.dtype = dtype, .bytes = static_cast<double>(bytes), .launches = launches});
    return true;
  }
  /// Waits until a device queue has done all submitted work; returns at once for the other kinds. Throws Error(device)
  /// if the work failed.
  void wait() const;
};

}  // namespace seer::device
