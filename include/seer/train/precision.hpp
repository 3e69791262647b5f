// SPDX-License-Identifier: Apache-2.0
// Mixed precision (method.md 5.3): the type of the computation, and the loss scale that keeps small gradients from
// vanishing in it.
#pragma once

#include <cstdint>
#include <string>

#include "seer/base/dtype.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::train {

/// The type of stored activations and rounded operands under `precision.compute`.
DType compute_type(const config::Precision& precision);

/// Error(input), naming what is needed, if this rank's library or processor cannot train in that type.
void check_precision(const config::Precision& precision, dnn::Backend& backend);

/// Time of layers of the trunk, forward and backward, times their number in the model.
struct PrecisionTrial {
  double single_ms = 0, half_ms = 0;
};
/// Times one layer of each shape, the most frequent shapes first, until `seconds` have passed.
PrecisionTrial try_precisions(const config::Config& config, dnn::Backend& backend, double seconds);
/// A warning if the configured precision was slower than single precision by more than the noise of such a trial; else
/// "".
std::string slower_text(const config::Config& config, const PrecisionTrial& trial);
/// Logs that warning if the host computes in 16 bits. The root measures, for about half a second.
void warn_if_slower(const config::Config& config, const comm::Communicator& comm);

/// The factor of the loss's gradient, a power of two. Starts at 2^16; doubles after 2000 updates without overflow, up
/// to 2^24; halves with each overflow, and that update is skipped. The same on all ranks, as they agree on overflow.
class LossScale {
 public:
  static constexpr double kStart = 65536, kMost = 16777216;
  static constexpr std::int64_t kCleanToGrow = 2000;

  /// "auto": dynamic for f16, which needs it for its range, else none.
  explicit LossScale(const config::Precision& precision);

  bool dynamic() const { return dynamic_; }
  /// 1 without scaling.
  double value() const { return value_; }
  /// Call after every update. Error(numerics), agreed, if the scale has left the range of float: then the scale is not
  /// what makes the numbers overflow.
  void observe(bool finite);

  void save(checkpoint::State& state) const;
  /// Does nothing for a checkpoint of a run without scaling.
  void restore(const checkpoint::State& state);

 private:
  bool dynamic_;
  double value_;
  std::int64_t clean_ = 0;  ///< updates without overflow since the last change of the scale
};

}  // namespace seer::train
