// SPDX-License-Identifier: Apache-2.0
#include "seer/train/compute.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/nn/model.hpp"

namespace seer::train {
namespace {

/// Collective. Ranks agree on the engines over a separate communicator, whose messages do not count as the update's.
dnn::DeviceOptions device_options(const config::Config& config, const comm::Communicator& comm) {
  const auto talk = std::make_shared<comm::Communicator>(comm.duplicate().named("engines"));
  return {.tf32 = config.precision.tf32,
          .deterministic = config.parallel.deterministic || config.guard.replay_every > 0,
          .float_weight_gradients = config.precision.float_weight_gradients,
          .cache_dir = config.log.run_dir + "/cache",
          .writes_cache = talk->is_root(),
          .agree =
              [talk](const std::string& mine) {
                auto text = mine;
                talk->broadcast(text);
                return text;
              },
          .packed_weights_bytes = packed_weights_limit(config)};
}

/// A convolution, BatchNorm and ReLU, forward and backward.
class Layer {
 public:
  Layer(const dnn::ConvShape& shape, DType type)
      : shape_(shape),
        x_(tensor({shape.n, shape.h, shape.w, shape.c_in}, type)),
        y_(tensor({shape.n, shape.out_h(), shape.out_w(), shape.c_out}, type)),
        d_x_(tensor(x_.shape, type)),
        d_y_(tensor(y_.shape, type)),
        weight_(tensor({1, 1, 1, shape.weight_elems()}, DType::f32)),
        d_weight_(tensor(weight_.shape, DType::f32)),
        one_(static_cast<std::size_t>(shape.c_out), 1.0F),
        zero_(one_.size(), 0.0F),
        sums_(1 + 2 * one_.size(), 1.0) {}

  double ms(dnn::Backend& dnn) {
    device::Queue queue;
    const kernels::BatchNorm bn{zero_.data(), one_.data(), one_.data(), zero_.data()};
    const kernels::BatchNormGradient gradient{.d_y = d_y_, .relu = kernels::Relu::yes};
    const dnn::Weights weights{weight_.data, 0};  // version 0: packed again, as after an update
    const Clock clock;
    dnn.conv_forward(queue, shape_, x_, weights, y_);
    kernels::batchnorm_sums(queue, y_, sums_.data());
    kernels::batchnorm_apply(queue, y_, bn, kernels::Relu::yes, d_y_);
    kernels::batchnorm_backward_sums(queue, y_, bn, gradient, sums_.data());
    kernels::batchnorm_backward_apply(queue, y_, bn, gradient, sums_.data(), 1e9, d_y_);
    dnn.conv_backward_data(queue, shape_, d_y_, weights, d_x_);
    dnn.conv_backward_weights(queue, shape_, x_, d_y_, d_weight_.f32(), dnn::Accumulate::yes);
    return clock.ms();
  }

 private:
  device::Tensor tensor(device::Shape shape, DType type) {
    memory_.emplace_back(static_cast<std::size_t>(shape.elems()) * dtype_bytes(type));
    const device::Tensor out{memory_.back().data(), shape, type};
    device::Queue queue;
    kernels::fill(queue, out, 0.25F);
    return out;
  }

  dnn::ConvShape shape_;
  std::vector<device::Buffer> memory_;
  device::Tensor x_, y_, d_x_, d_y_, weight_, d_weight_;
  std::vector<float> one_, zero_;
  std::vector<double> sums_;
};

}  // namespace

device::Space agreed_space(const config::Config& config, const comm::Communicator& comm) {
  auto space = device::Space::host;
  comm::agree(comm, "choosing the device", [&] { space = device::chosen_space(config.parallel.device); });
  return space;
}

std::unique_ptr<device::DeviceQueue> make_queue(const config::Config& config, const comm::Communicator& comm) {
  std::unique_ptr<device::DeviceQueue> queue;
  if (comm.ledger() != nullptr || agreed_space(config, comm) == device::Space::host) return queue;
  comm::agree(comm, "making a device queue", [&] { queue = std::make_unique<device::DeviceQueue>(); });
  return queue;
}

std::shared_ptr<dnn::Backend> make_backend(const config::Config& config, const comm::Communicator& comm) {
  std::shared_ptr<dnn::Backend> backend;
  const auto space = agreed_space(config, comm);
  dnn::DeviceOptions options;
  if (space == device::Space::device) options = device_options(config, comm);
  comm::agree(comm, "choosing the precision", [&] {
    backend = dnn::make_backend(space, options);
    check_precision(config.precision, *backend);
  });
  return backend;
}

std::size_t packed_weights_limit(const config::Config& config) {
  return config.parallel.shard == "parameters" ? std::size_t{1} << 30 : std::numeric_limits<std::size_t>::max();
}

std::string why_not_bf16(const Capabilities& rank) {
  if (rank.space == device::Space::device && rank.compute_capability > 0) {
    if (rank.compute_capability >= 80) return "";
    return fmt::format("{} has compute capability {}.{}, and bf16 needs 8.0", rank.name, rank.compute_capability / 10,
                       rank.compute_capability % 10);
  }
  return rank.matrix_units ? "" : rank.name + " has no matrix units for bf16 (AMX)";
}

void settle_precision(config::Config& config, const comm::Communicator& comm) {
  auto& compute = config.precision.compute;
  if (compute != "auto") return;
  Capabilities mine{.space = agreed_space(config, comm), .matrix_units = dnn::has_bf16_matrix_units()};
  if (mine.space == device::Space::device) mine.compute_capability = device::compute_capability();
  mine.name = mine.compute_capability > 0 ? "the device" : device::processor();
  const auto reasons = comm.all_gather(why_not_bf16(mine));
  const auto reason = std::ranges::find_if(reasons, [](const auto& text) { return !text.empty(); });
  compute = reason == reasons.end() ? "bf16" : "fp32";
  log::info(fmt::format("precision.compute = \"auto\": {}, because {}", compute,
                        reason == reasons.end() ? "every rank has matrix units for it"
                                                : fmt::format("rank {}: {}", reason - reasons.begin(), *reason)));
}

DType compute_type(const config::Precision& precision) {
  if (precision.compute == "bf16") return DType::bf16;
  if (precision.compute == "fp16_o1") return DType::f16;
  ensure(precision.compute == "fp32", "a settled precision.compute");
  return DType::f32;
}

void check_precision(const config::Precision& precision, dnn::Backend& backend) {
  const DType type = compute_type(precision);
  if (backend.supports(type)) return;
  const char* needed = type == DType::f16 ? "oneDNN 3.x on a processor with avx512_fp16, or a GPU"
                                          : "oneDNN on a processor with avx512, or a GPU";
  const bool other_half = type == DType::f16 && backend.supports(DType::bf16);
  throw Error(
      ExitCode::input,
      fmt::format("precision.compute = \"{}\": {} cannot train in this precision on this processor; it needs {}",
                  precision.compute, backend.describe(), needed),
      fmt::format("use precision.compute = \"{}\"", other_half ? "bf16" : "fp32"));
}

PrecisionTrial try_precisions(const config::Config& config, dnn::Backend& dnn, double seconds) {
  constexpr std::int64_t kImages = 4, kMostMacs = 700'000'000, kMostWeights = std::int64_t{1} << 24;
  constexpr int kRuns = 3;
  const nn::Model model(config.model);
  auto layers = nn::convolutions(model.trunk(), kImages, config.crops.front().size);
  layers.erase(layers.begin());  // it reads the images, and says little about either precision
  std::ranges::stable_sort(layers, std::greater{}, &nn::Convolution::count);
  PrecisionTrial trial;
  const Clock clock;
  for (auto [shape, count] : layers) {
    if (shape.weight_elems() > kMostWeights) continue;
    while (shape.macs() > kMostMacs && shape.n > 1) shape.n /= 2;
    while (shape.macs() > kMostMacs && shape.h > shape.kernel * shape.stride) shape.w = shape.h /= 2;
    Layer single(shape, DType::f32), half(shape, compute_type(config.precision));
    double single_ms = 1e30, half_ms = 1e30;
    for (int run = 0; run <= kRuns && (run < 2 || clock.seconds() < seconds); ++run) {
      const double a = single.ms(dnn), b = half.ms(dnn);
      if (run == 0) continue;  // warm-up: makes plans, touches pages
      single_ms = std::min(single_ms, a);
      half_ms = std::min(half_ms, b);
    }
    trial.single_ms += single_ms * static_cast<double>(count);
    trial.half_ms += half_ms * static_cast<double>(count);
    if (clock.seconds() > seconds) break;
  }
  return trial;
}

std::string slower_text(const config::Config& config, const PrecisionTrial& trial) {
  constexpr double kNoise = 1.05;
  if (trial.half_ms <= kNoise * trial.single_ms) return "";
  const auto processor = device::processor();
  return fmt::format(
      "precision.compute = \"{}\" is slower than \"fp32\" on this processor{}: in a short trial the trunk's layers "
      "took {:.1f} ms instead of {:.1f}. It saves memory, but no time",
      config.precision.compute, processor.empty() ? "" : " (" + processor + ")", trial.half_ms, trial.single_ms);
}

void warn_if_slower(const config::Config& config, const comm::Communicator& comm) {
  if (!comm.is_root() || compute_type(config.precision) == DType::f32 || config.parallel.device == "device" ||
      (config.parallel.device == "auto" && device::bound_device() >= 0) || device::kernels_need_device())
    return;
  constexpr double kSeconds = 0.4;
  const auto dnn = dnn::make_host_backend();
  if (!dnn->supports(compute_type(config.precision))) return;  // the run refuses it later, with a message
  try {
    if (const auto text = slower_text(config, try_precisions(config, *dnn, kSeconds)); !text.empty()) log::warn(text);
  } catch (const Error&) {  // the run itself will report what is wrong, on all ranks
  }
}

LossScale::LossScale(const config::Precision& precision)
    : dynamic_(precision.loss_scale == "dynamic" ||
               (precision.loss_scale == "auto" && compute_type(precision) == DType::f16)),
      value_(dynamic_ ? kStart : 1) {}

void LossScale::observe(bool finite) {
  if (!dynamic_) return;
  if (!finite) {
    value_ /= 2;
    clean_ = 0;
    if (value_ >= static_cast<double>(std::numeric_limits<float>::min())) return;
    throw Error(ExitCode::numerics,
                fmt::format("loss or gradients were not finite in many updates, and the loss scale fell to {:.3g}: no "
                            "scale makes them finite",
                            value_),
                "lower schedule.lr_peak or lengthen the warm-up, and continue from an earlier checkpoint")
        .as_agreed();
  }
  if (++clean_ < kCleanToGrow) return;
  value_ = std::max(value_, std::min(2 * value_, kMost));  // the scale of a checkpoint may be larger than kMost
  clean_ = 0;
}

}  // namespace seer::train
