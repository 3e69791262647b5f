// SPDX-License-Identifier: Apache-2.0
// Mixed precision (method.md 5.3): the type of the computation, and the scale of the loss that keeps small gradients
// from vanishing in it.
#pragma once

#include <cstdint>
#include <string>

#include "seer/base/dtype.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::train {

/// What `precision.compute` stores activations in and rounds operands to.
DType compute_type(const config::Precision& precision);

/// Error(input), naming what is needed, where this rank's library or processor cannot train in that type.
void check_precision(const config::Precision& precision, dnn::Backend& backend);

/// Time of blocks of the model, forward and backward, as often as it has them.
struct PrecisionTrial {
  double single_ms = 0, half_ms = 0;
};
/// Of the stages that come first in `seconds`, the deepest before the others; one at least.
PrecisionTrial try_precisions(const config::Config& config, dnn::Backend& backend, double seconds);
/// "" unless the configured precision was slower than single precision by more than such a trial scatters.
std::string slower_text(const config::Config& config, const PrecisionTrial& trial);
/// A warning with these figures, where the host computes in 16 bits. The root measures, in about half a second.
void warn_if_slower(const config::Config& config, const comm::Communicator& comm);

/// The factor of the loss's gradient, a power of two: starts at 2^16, doubles after 2000 updates without overflow up to
/// 2^24, and halves with each that overflows, which is then skipped. The same on all ranks, as they agree on overflow.
class LossScale {
 public:
  static constexpr double kStart = 65536, kMost = 16777216;
  static constexpr std::int64_t kCleanToGrow = 2000;

  /// "auto": dynamic for f16, whose range needs it, else none.
  explicit LossScale(const config::Precision& precision);

  bool dynamic() const { return dynamic_; }
  /// 1 without scaling.
  double value() const { return value_; }
  /// After every update. Error(numerics), agreed, where the scale has left the range of float: then it is not the scale
  /// that makes the numbers overflow.
  void observe(bool finite);

  void save(checkpoint::State& state) const;
  /// A checkpoint of a run without scaling changes nothing.
  void restore(const checkpoint::State& state);

 private:
  bool dynamic_;
  double value_;
  std::int64_t clean_ = 0;  ///< updates without overflow since the scale was changed last
};

}  // namespace seer::train
