// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/trial.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/train/memory_plan.hpp"

namespace seer::plan {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Values::Values(device::Queue& queue, const device::Shape& shape, DType type, std::uint64_t seed)
    : memory(static_cast<std::size_t>(shape.elems()) * dtype_bytes(type), queue.space),
      tensor{memory.data(), shape, type, queue.space} {
  if (queue.space == device::Space::planned) return;
  const auto length = std::min(shape.elems(), std::int64_t{1} << 22);
  auto floats = device::Buffer::floats(static_cast<std::size_t>(length));
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < length; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    floats.f32()[i] = static_cast<float>(state >> 40) * 0x1p-24F - 0.5F;
  }
  const device::Buffer rounded(static_cast<std::size_t>(length) * dtype_bytes(type));
  const device::Shape part{1, 1, 1, length};
  device::Queue host;
  kernels::cast(host, {.data = floats.data(), .shape = part}, {rounded.data(), part, type});
  for (std::size_t at = 0; at < memory.bytes(); at += rounded.bytes()) {
    device::copy(queue, rounded.data(), device::Space::host, static_cast<char*>(memory.data()) + at, queue.space,
                 std::min(rounded.bytes(), memory.bytes() - at));
  }
  queue.wait();
}

ConvTrial::ConvTrial(device::Queue& queue, dnn::Backend& backend, const dnn::ConvShape& s, DType type)
    : queue_(queue),
      backend_(backend),
      shape_(s),
      src_(queue, s.src(), type),
      d_dst_(queue, s.dst(), type),
      weight_(queue, {1, 1, 1, s.weight_elems()}, DType::f32),
      d_weight_(weight_.memory.bytes(), queue.space),
      out_(std::max(src_.memory.bytes(), d_dst_.memory.bytes()), queue.space) {}

ConvTrial::~ConvTrial() {
  backend_.set_packed_weights_limit(0);  // later tensors may get the same addresses, so drop the packed copies
  backend_.set_packed_weights_limit(std::size_t{1} << 30);
}

void ConvTrial::call(dnn::Direction direction) {
  if (queue_.space == device::Space::host) ++version_;
  const dnn::Weights weights{weight_.tensor.data, version_};
  if (direction == dnn::Direction::backward_weights) {
    return backend_.conv_backward_weights(queue_, shape_, src_.tensor, d_dst_.tensor, d_weight_.f32(),
                                          dnn::Accumulate::yes);
  }
  const bool forward = direction == dnn::Direction::forward;
  auto out = forward ? d_dst_.tensor : src_.tensor;
  out.data = out_.data();
  backend_.conv(queue_, direction, shape_, forward ? src_.tensor : d_dst_.tensor, weights, out, dnn::Accumulate::no);
}

MadeUpBatch::MadeUpBatch(const config::Config& config, const comm::Communicator& world, device::Space space)
    : batch(train::planned_batch(config, world.size())) {
  std::optional<device::DeviceQueue> own;
  if (space == device::Space::device) own.emplace();
  auto queue = own ? own->queue() : device::Queue{};
  for (auto& group : batch.groups) {
    const auto seed = 1 + static_cast<std::uint64_t>(world.rank());
    group.images = pixels.emplace_back(queue, group.images.shape, DType::f32, seed).tensor;
  }
  batch.targets = {};
  for (std::int64_t i = 0; i < batch.images; ++i) batch.targets.add(std::array{std::int32_t{0}});
}

}  // namespace seer::plan
