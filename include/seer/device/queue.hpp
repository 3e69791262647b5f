// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "seer/device/ledger.hpp"
#include "seer/device/tensor.hpp"

namespace seer::device {

/// An execution queue: the order in which kernels and library calls run. On the host every call has finished when it
/// returns; a device queue is a stream; a planned one tells its ledger. Passed explicitly, never a global default.
struct Queue {
  Space space = Space::host;
  void* stream = nullptr;
  Ledger* ledger = nullptr;

  static Queue planned(Ledger& ledger) { return {.space = Space::planned, .ledger = &ledger}; }
  /// A planned one, or where there is no ledger the host's.
  static Queue of(Ledger* ledger) { return ledger != nullptr ? planned(*ledger) : Queue{}; }
  /// First line of every kernel: on a planned machine, notes the bytes it would read and write and how often a device
  /// would be handed something, and says true.
  bool only_plans(std::int64_t bytes, DType dtype = DType::f32, int launches = 1) const {
    if (space != Space::planned) return false;
    ledger->work({.dtype = dtype, .bytes = static_cast<double>(bytes), .launches = launches});
    return true;
  }
  /// Until a device queue has done all it was handed; the other kinds always have. Error(device) where that failed.
  void wait() const;
};

}  // namespace seer::device
