// SPDX-License-Identifier: Apache-2.0
// Where and how a run computes: device queue, library (dnn), and mixed precision (method.md 5.3) with its loss scale.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/tensor.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::train {

/// Collective. Returns where the run computes, by `parallel.device`. Error(device), agreed, if there is no such device.
device::Space agreed_space(const config::Config& config, const comm::Communicator& comm);

/// Collective. Returns a queue if the run computes on a device; null on the host and on a planned machine.
std::unique_ptr<device::DeviceQueue> make_queue(const config::Config& config, const comm::Communicator& comm);

/// Collective. Error(input), agreed, if some rank cannot compute in the configured precision. On a device, all ranks
/// use the root's choice of engines, which the root keeps in the run folder.
std::shared_ptr<dnn::Backend> make_backend(const config::Config& config, const comm::Communicator& comm);

/// Limit in bytes for packed copies of weights on a device. There is none, except with shard = "parameters", where
/// parameters come and go with each use: then it is 1 GiB.
std::size_t packed_weights_limit(const config::Config& config);

/// What decides between bf16 and fp32 under precision.compute = "auto".
struct Capabilities {
  device::Space space = device::Space::host;
  int compute_capability = 0;  ///< of the device; 0: none, or the stand-in, which computes like the host
  bool matrix_units = false;   ///< of the host, for bf16
  std::string name{};          ///< of the processor or device
};
/// "" if bf16 is faster than fp32 there, else why not. fp16_o1 is never chosen: it needs its loss scale.
std::string why_not_bf16(const Capabilities& rank);
/// Collective. Replaces "auto" by bf16, or by fp32 if some rank would not gain from bf16. The root logs why.
void settle_precision(config::Config& config, const comm::Communicator& comm);

/// The type of stored activations and rounded operands under `precision.compute`, which settle_precision() has settled.
DType compute_type(const config::Precision& precision);

/// Error(input), naming what is needed, if this rank's library or processor cannot train in that type.
void check_precision(const config::Precision& precision, dnn::Backend& backend);

/// Time of layers of the trunk, forward and backward, times their number in the model.
struct PrecisionTrial {
  double single_ms = 0, half_ms = 0;
};
/// Times one layer of each shape, the most frequent shapes first, until `seconds` have passed.
PrecisionTrial try_precisions(const config::Config& config, dnn::Backend& backend, double seconds);
/// A warning if the configured precision was slower than single precision by more than such a trial's noise, or "".
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

  void save(checkpoint::State& state) const {
    if (!dynamic_) return;
    state.loss_scale = value_;
    state.loss_scale_clean = clean_;
  }
  /// Does nothing for a checkpoint of a run without scaling.
  void restore(const checkpoint::State& state) {
    if (!dynamic_ || state.loss_scale_clean < 0) return;
    value_ = state.loss_scale;
    clean_ = state.loss_scale_clean;
  }

 private:
  bool dynamic_;
  double value_;
  std::int64_t clean_ = 0;  ///< updates without overflow since the last change of the scale
};

}  // namespace seer::train
