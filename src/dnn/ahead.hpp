// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace seer::dnn::direct {

/// Prefetches what the next task needs of one array (some channels of some rows of an image), a few cache lines at a
/// time during the present task: the hardware predicts neither the next band of rows nor strided results.
class Ahead {
 public:
  Ahead() = default;
  /// `pixels` pieces of `floats` each, `stride` floats apart, prefetched in `steps` steps.
  Ahead(const float* begin, std::int64_t pixels, std::int64_t floats, std::int64_t stride, std::int64_t steps)
      : pixel_(reinterpret_cast<const char*>(begin)),
        end_(pixel_ + pixels * stride * 4),
        bytes_(floats * 4),
        stride_(stride * 4),
        lines_per_step_(pixels * (bytes_ / kLine + 1) / steps + 1) {}

  template <bool kWrite>
  void step() {
    for (std::int64_t i = 0; i < lines_per_step_ && pixel_ < end_; ++i) {
      __builtin_prefetch(pixel_ + offset_, kWrite, 2);
      offset_ += kLine;
      if (offset_ >= bytes_) {
        offset_ = 0;
        pixel_ += stride_;
      }
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  const char *pixel_ = nullptr, *end_ = nullptr;
  std::int64_t bytes_ = 0, stride_ = 0, offset_ = 0, lines_per_step_ = 0;
};

/// Smaller activations stay in the second-level cache between layers; prefetching them only costs time.
constexpr std::int64_t kAheadFrom = 1 << 20;  // bytes

}  // namespace seer::dnn::direct
