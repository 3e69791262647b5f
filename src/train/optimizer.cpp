// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::train {
namespace {

/// Within a device, or within the host whatever the queue.
void move(device::Queue& queue, const double* from, double* to, std::size_t count) {
  if (queue.space == device::Space::device) {
    device::copy(queue, from, queue.space, to, queue.space, count * sizeof(double));
  } else {
    std::copy_n(from, count, to);
  }
}

}  // namespace

Optimizer::Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue) {
  rule_.momentum = static_cast<float>(config.momentum);
  rule_.weight_decay = static_cast<float>(config.weight_decay);
  rule_.trust = static_cast<float>(config.trust);
  rule_.lars = config.kind == "lars";
  for (const auto& p : table.entries()) names_.push_back(p.name);
  skip_.assign(names_.size(), 0);
  squares_.assign(2 * names_.size(), 0);
  message_.assign(2 * names_.size(), 0);
  if (queue.space != device::Space::device) return;
  there_ = device::Buffer(skip_bytes_at() + skip_.size(), queue.space);
  here_ = device::PinnedBuffer(there_.bytes());
}

Optimizer::Part Optimizer::part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end) const {
  Part out;
  const auto& tensors = table.entries();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto first = std::max(tensors[i].offset, begin), last = std::min(tensors[i].offset + tensors[i].elems, end);
    if (first >= last) continue;
    if (out.ranges.empty()) out.first_tensor = i;
    out.ranges.push_back({first - begin, last - begin});
  }
  if (on_device() && !out.ranges.empty()) out.there = kernels::FlatRanges(device::Space::device, out.ranges);
  return out;
}

void Optimizer::set_frozen(std::string_view name, bool frozen) {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) skip_[i] = frozen ? 1 : 0;
  }
}

void Optimizer::forget_squares(device::Queue& queue) {
  std::fill(squares_.begin(), squares_.end(), 0.0);
  if (!on_device()) return;
  // A double of zero is two floats of zero.
  const auto floats = static_cast<std::int64_t>(2 * squares_.size());
  kernels::fill(queue, device::view(static_cast<float*>(there_.data()), floats, queue.space), 0);
}

void Optimizer::measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters) {
  if (part.ranges.empty()) return;
  if (on_device()) {
    kernels::squared_norms(queue, part.there, gradients, squares_there() + part.first_tensor);
    kernels::squared_norms(queue, part.there, parameters, squares_there() + names_.size() + part.first_tensor);
    return;
  }
  kernels::squared_norms(queue, gradients, part.ranges, squares_.data() + part.first_tensor);
  kernels::squared_norms(queue, parameters, part.ranges, squares_.data() + names_.size() + part.first_tensor);
}

std::span<double> Optimizer::pack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first;
  const double* from = on_device() ? squares_there() : squares_.data();
  double* to = on_device() ? message_there() : message_.data();
  for (const std::size_t half : {0, 1}) move(queue, from + half * names_.size() + first, to + half * count, count);
  return {to, 2 * count};
}

void Optimizer::unpack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first;
  const double* from = on_device() ? message_there() : message_.data();
  double* to = on_device() ? squares_there() : squares_.data();
  for (const std::size_t half : {0, 1}) move(queue, from + half * count, to + half * names_.size() + first, count);
}

void Optimizer::read_squares(device::Queue& queue) {
  if (!on_device()) return;
  const auto bytes = squares_.size() * sizeof(double);
  device::copy(queue, there_.data(), queue.space, here_.data(), device::Space::host, bytes);
  queue.wait();
  std::memcpy(squares_.data(), here_.data(), bytes);
}

double Optimizer::gradient_norm() const {
  double sum = 0;
  for (std::size_t i = 0; i < names_.size(); ++i) sum += skip_[i] != 0 ? 0 : squares_[i];
  return std::sqrt(sum) * static_cast<double>(rule_.gradient_factor);
}

std::string Optimizer::not_finite() const {
  for (std::size_t i = names_.size(); i-- > 0;) {
    if (skip_[i] == 0 && !std::isfinite(squares_[i])) return names_[i];
  }
  return "";
}

void Optimizer::set_rate(device::Queue& queue, double lr) {
  rule_.lr = static_cast<float>(lr);
  if (!on_device()) return;
  auto* here = static_cast<char*>(here_.data());
  std::memcpy(here + rule_bytes_at(), &rule_, sizeof rule_);
  std::memcpy(here + skip_bytes_at(), skip_.data(), skip_.size());
  device::copy(queue, here + rule_bytes_at(), device::Space::host, static_cast<char*>(there_.data()) + rule_bytes_at(),
               queue.space, sizeof rule_ + skip_.size());
}

void Optimizer::step(device::Queue& queue, const Part& part, const float* gradients, float* momenta,
                     float* parameters) {
  if (part.ranges.empty()) return;
  if (on_device()) {
    const auto* there = static_cast<const char*>(there_.data());
    kernels::optimizer_update(
        queue, part.there, reinterpret_cast<const std::uint8_t*>(there + skip_bytes_at()) + part.first_tensor,
        squares_there() + names_.size() + part.first_tensor, squares_there() + part.first_tensor,
        reinterpret_cast<const kernels::UpdateRule*>(there + rule_bytes_at()), gradients, momenta, parameters);
    return;
  }
  kernels::optimizer_update(queue, part.ranges, std::span(skip_).subspan(part.first_tensor, part.ranges.size()),
                            squares_.data() + names_.size() + part.first_tensor, squares_.data() + part.first_tensor,
                            rule_, gradients, momenta, parameters);
}

}  // namespace seer::train
