// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <algorithm>
#include <cmath>

#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::train {

Optimizer::Optimizer(const config::Optimizer& config, const nn::ParameterTable& table, const device::Queue& queue)
    : planned_(queue.space == device::Space::planned) {
  rule_.momentum = static_cast<float>(config.momentum);
  rule_.weight_decay = static_cast<float>(config.weight_decay);
  rule_.trust = static_cast<float>(config.trust);
  rule_.lars = config.kind == "lars";
  for (const auto& p : table.entries()) {
    names_.push_back(p.name);
    treatments_.push_back(p.treatment);
  }
  flags_.assign(names_.size(), 0);
  sent_rule_ = device::Mirrored<kernels::UpdateRule>(1, queue.space);
  sent_flags_ = device::Mirrored<std::uint8_t>(names_.size(), queue.space);
  squares_ = device::Mirrored<double>(2 * names_.size(), queue.space);
  message_ = device::Buffer(2 * names_.size() * sizeof(double), queue.space);
}

Optimizer::Part Optimizer::part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end) const {
  Part out;
  std::vector<kernels::Range> ranges;
  const auto& tensors = table.entries();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto first = std::max(tensors[i].offset, begin), last = std::min(tensors[i].offset + tensors[i].elems, end);
    if (first >= last) continue;
    if (ranges.empty()) out.first_tensor = i;
    ranges.push_back({first - begin, last - begin});
  }
  if (!ranges.empty()) out.ranges = kernels::FlatRanges(message_.space(), ranges);
  return out;
}

void Optimizer::set_update(std::int64_t update) {
  for (std::size_t i = 0; i < treatments_.size(); ++i) {
    const auto& t = treatments_[i];
    flags_[i] = static_cast<std::uint8_t>((update < t.frozen_updates ? kernels::kSkipped : 0) |
                                          (t.decay ? 0 : kernels::kNoDecay) | (t.trust ? 0 : kernels::kNoTrust));
  }
}

void Optimizer::forget_squares(device::Queue& queue) {
  kernels::fill(queue, squares_.view(), 0);  // a zero double is two zero floats
}

void Optimizer::measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters) {
  if (part.ranges.ranges() == 0) return;
  kernels::squared_norms(queue, part.ranges, gradients, gradient_squares(part.first_tensor));
  kernels::squared_norms(queue, part.ranges, parameters, parameter_squares(part.first_tensor));
}

std::span<double> Optimizer::pack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first, bytes = count * sizeof(double);
  device::copy(queue, gradient_squares(first), queue.space, message(), queue.space, bytes);
  device::copy(queue, parameter_squares(first), queue.space, message() + count, queue.space, bytes);
  return {message(), 2 * count};
}

void Optimizer::unpack_squares(device::Queue& queue, std::size_t first, std::size_t last) {
  const auto count = last - first, bytes = count * sizeof(double);
  device::copy(queue, message(), queue.space, gradient_squares(first), queue.space, bytes);
  device::copy(queue, message() + count, queue.space, parameter_squares(first), queue.space, bytes);
}

void Optimizer::read_squares(device::Queue& queue) {
  squares_.fetch(queue);
  queue.wait();
}

double Optimizer::gradient_norm() const {
  double sum = 0;
  for (std::size_t i = 0; !planned_ && i < names_.size(); ++i) sum += is_frozen(i) ? 0 : squares_.on_host()[i];
  return std::sqrt(sum) * static_cast<double>(rule_.gradient_factor);
}

std::string Optimizer::not_finite() const {
  for (std::size_t i = planned_ ? 0 : names_.size(); i-- > 0;) {
    if (!is_frozen(i) && !std::isfinite(squares_.on_host()[i])) return names_[i];
  }
  return "";
}

void Optimizer::set_rate(device::Queue& queue, double lr) {
  rule_.lr = static_cast<float>(lr);
  if (!planned_) {
    *sent_rule_.on_host() = rule_;
    std::copy(flags_.begin(), flags_.end(), sent_flags_.on_host());
  }
  sent_rule_.send(queue);
  sent_flags_.send(queue);
}

void Optimizer::step(device::Queue& queue, const Part& part, const float* gradients, float* momenta,
                     float* parameters) {
  if (part.ranges.ranges() == 0) return;
  kernels::optimizer_update(queue, part.ranges, sent_flags_.on_queue() + part.first_tensor,
                            parameter_squares(part.first_tensor), gradient_squares(part.first_tensor),
                            sent_rule_.on_queue(), gradients, momenta, parameters);
}

}  // namespace seer::train
