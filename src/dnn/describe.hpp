// SPDX-License-Identifier: Apache-2.0
// What back ends say about a call: in messages, and in a planned machine's ledger.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "seer/device/ledger.hpp"
#include "seer/device/recorder.hpp"
#include "seer/device/region.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

inline const char* title(Direction direction) {
  return direction == Direction::forward         ? "convolution forward"
         : direction == Direction::backward_data ? "convolution backward to data"
                                                 : "convolution backward to weights";
}

inline std::string shape_text(Direction direction, const ConvShape& s) {
  return fmt::format("{} n {} h {} w {} channels {} -> {} kernel {} stride {} pad {} groups {}", title(direction), s.n,
                     s.h, s.w, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups);
}

/// Tells profilers of a library call until the end of the scope, and lets a device::Recorder time it.
struct Told {
  device::Region region;
  device::Timed timed;
  Told(const device::Queue& queue, const char* what, const device::Work& work)
      : region(what), timed(queue, what, work.bytes, work.flops) {}
  Told(const device::Queue& queue, Direction direction, const ConvShape& shape, const device::Work& work)
      : region(title(direction)), timed(queue, label(direction, shape), work.bytes, work.flops) {}

 private:
  static std::string label(Direction direction, const ConvShape& shape) {
    const auto* const recorder = device::Recorder::current();
    if (recorder == nullptr) return {};
    return recorder->by_shape() ? shape_text(direction, shape) : title(direction);
  }
};

inline device::Work work_of(Direction direction, const ConvShape& s, DType type,
                            Accumulate accumulate = Accumulate::no) {
  using Kind = device::Work::Kind;
  const double element = static_cast<double>(dtype_bytes(type));
  const std::int64_t added = accumulate == Accumulate::yes ? s.src().elems() : 0;  // read once more
  return {.kind = s.groups > 1   ? Kind::grouped
                  : s.kernel > 1 ? Kind::dense
                                 : Kind::pointwise,
          .direction = direction,
          .dtype = type,
          .width = s.groups > 1 ? s.c_in / s.groups : std::min(s.c_in, s.c_out),
          .flops = 2 * static_cast<double>(s.macs()),
          .bytes = element * static_cast<double>(s.src().elems() + s.dst().elems() + added) +
                   4.0 * static_cast<double>(s.weight_elems()),
          .weight_bytes = 2 * 4.0 * static_cast<double>(s.weight_elems())};
}

inline device::Work work_of(std::int64_t m, std::int64_t n, std::int64_t k, DType type) {
  const double element = static_cast<double>(dtype_bytes(type));
  return {.kind = device::Work::Kind::gemm,
          .dtype = type,
          .width = std::min({m, n, k}),
          .flops = 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
          .bytes = element * static_cast<double>(m * k + k * n) + 4.0 * static_cast<double>(m * n)};
}

}  // namespace seer::dnn
