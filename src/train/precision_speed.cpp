// SPDX-License-Identifier: Apache-2.0
// Whether 16 bits are worth it: blocks of the model in both precisions, timed for a moment before the run.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/train/precision.hpp"

namespace seer::train {
namespace {

/// The three convolutions of a block and their normalisations, forward and backward.
class Block {
 public:
  Block(const nn::Stage& stage, std::int64_t images, std::int64_t side, DType type)
      : channels_(stage.width),
        x_(tensor({images, side, side, channels_}, type)),
        y_(tensor(x_.shape, type)),
        d_y_(tensor(x_.shape, type)),
        d_x_(tensor(x_.shape, type)),
        one_(static_cast<std::size_t>(channels_), 1.0F),
        zero_(static_cast<std::size_t>(channels_), 0.0F),
        sums_(static_cast<std::size_t>(1 + 2 * channels_), 1.0) {
    const dnn::ConvShape pointwise{.n = images, .h = side, .w = side, .c_in = channels_, .c_out = channels_};
    auto grouped = pointwise;
    grouped.kernel = 3;
    grouped.pad = 1;
    grouped.groups = channels_ / stage.group_width;
    shapes_ = {pointwise, grouped, pointwise};
    weight_ = tensor({1, 1, 1, std::max(pointwise.weight_elems(), grouped.weight_elems())}, DType::f32);
    d_weight_ = tensor(weight_.shape, DType::f32);
  }

  double ms(dnn::Backend& dnn) {
    device::Queue queue;
    const kernels::BatchNorm bn{zero_.data(), one_.data(), one_.data(), zero_.data()};
    const kernels::BatchNormGradient gradient{.d_y = d_y_, .relu = kernels::Relu::yes};
    const Clock clock;
    for (const auto& shape : shapes_) {
      const dnn::Weights weights{weight_.data, 0};  // packed anew, as after an update
      dnn.conv_forward(queue, shape, x_, weights, y_);
      kernels::batchnorm_sums(queue, y_, sums_.data());
      kernels::batchnorm_apply(queue, y_, bn, kernels::Relu::yes, d_x_);
      kernels::batchnorm_backward_sums(queue, y_, bn, gradient, sums_.data());
      kernels::batchnorm_backward_apply(queue, y_, bn, gradient, sums_.data(), 1e9, d_x_);
      dnn.conv_backward_data(queue, shape, d_y_, weights, d_x_);
      dnn.conv_backward_weights(queue, shape, x_, d_y_, d_weight_.f32(), dnn::Accumulate::yes);
    }
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

  std::int64_t channels_;
  std::vector<device::Buffer> memory_;
  device::Tensor x_, y_, d_y_, d_x_, weight_, d_weight_;
  std::vector<float> one_, zero_;
  std::vector<double> sums_;
  std::vector<dnn::ConvShape> shapes_;
};

}  // namespace

PrecisionTrial try_precisions(const config::Config& config, dnn::Backend& dnn, double seconds) {
  constexpr std::int64_t kImages = 4, kMostFlops = 4'000'000'000, kMostWeights = std::int64_t{1} << 24;
  constexpr int kRuns = 3;
  const auto stages = nn::architecture(config.model).stages;
  std::vector<std::size_t> order(stages.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(order, std::greater{}, [&](std::size_t i) { return stages[i].depth; });
  PrecisionTrial trial;
  const Clock clock;
  for (const auto i : order) {
    const auto& stage = stages[i];
    if (stage.width * stage.width > kMostWeights) continue;
    std::int64_t images = kImages, side = std::max<std::int64_t>(config.crops.front().size >> (i + 2), 1);
    const auto flops = [&] { return 12 * images * side * side * stage.width * stage.width; };
    while (flops() > kMostFlops && images > 1) images /= 2;
    while (flops() > kMostFlops && side > 1) side /= 2;
    Block single(stage, images, side, DType::f32), half(stage, images, side, compute_type(config.precision));
    double single_ms = 1e30, half_ms = 1e30;
    for (int run = 0; run <= kRuns && (run < 2 || clock.seconds() < seconds); ++run) {
      const double a = single.ms(dnn), b = half.ms(dnn);
      if (run == 0) continue;  // plans, touches pages
      single_ms = std::min(single_ms, a);
      half_ms = std::min(half_ms, b);
    }
    trial.single_ms += single_ms * static_cast<double>(stage.depth);
    trial.half_ms += half_ms * static_cast<double>(stage.depth);
    if (clock.seconds() > seconds) break;
  }
  return trial;
}

std::string slower_text(const config::Config& config, const PrecisionTrial& trial) {
  constexpr double kNoise = 1.05;
  if (trial.half_ms <= kNoise * trial.single_ms) return "";
  const auto processor = device::processor();
  return fmt::format(
      "precision.compute = \"{}\" is slower than \"fp32\" on this processor{}: the model's blocks took {:.1f} ms "
      "against "
      "{:.1f} in a short trial; it saves memory, but no time",
      config.precision.compute, processor.empty() ? "" : " (" + processor + ")", trial.half_ms, trial.single_ms);
}

void warn_if_slower(const config::Config& config, const comm::Communicator& comm) {
  if (!comm.is_root() || compute_type(config.precision) == DType::f32 || config.parallel.device == "device" ||
      (config.parallel.device == "auto" && device::bound_device() >= 0) || device::kernels_need_device()) {
    return;
  }
  constexpr double kSeconds = 0.4;
  const auto dnn = dnn::make_host_backend();
  if (!dnn->supports(compute_type(config.precision))) return;  // refused later, in words
  try {
    if (const auto text = slower_text(config, try_precisions(config, *dnn, kSeconds)); !text.empty()) log::warn(text);
  } catch (const Error&) {  // what is wrong with the model or the library, the run says on all ranks
  }
}

}  // namespace seer::train
