// SPDX-License-Identifier: Apache-2.0
#include "seer/train/optimizer.hpp"

#include <algorithm>
#include <cmath>

namespace seer::train {

Optimizer::Optimizer(const config::Optimizer& config, const nn::ParameterTable& table) {
  rule_.momentum = static_cast<float>(config.momentum);
  rule_.weight_decay = static_cast<float>(config.weight_decay);
  rule_.trust = static_cast<float>(config.trust);
  rule_.lars = config.kind == "lars";
  for (const auto& p : table.entries()) names_.push_back(p.name);
  skip_.assign(names_.size(), 0);
  squares_.assign(2 * names_.size(), 0);
  message_.assign(2 * names_.size(), 0);
}

Optimizer::Part Optimizer::part(const nn::ParameterTable& table, std::int64_t begin, std::int64_t end) {
  Part out;
  const auto& tensors = table.entries();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto first = std::max(tensors[i].offset, begin), last = std::min(tensors[i].offset + tensors[i].elems, end);
    if (first >= last) continue;
    if (out.ranges.empty()) out.first_tensor = i;
    out.ranges.push_back({first - begin, last - begin});
  }
  return out;
}

void Optimizer::set_frozen(std::string_view name, bool frozen) {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (names_[i] == name) skip_[i] = frozen ? 1 : 0;
  }
}

void Optimizer::forget_squares() {
  std::fill(squares_.begin(), squares_.end(), 0.0);
}

void Optimizer::measure(device::Queue& queue, const Part& part, const float* gradients, const float* parameters) {
  if (part.ranges.empty()) return;
  kernels::squared_norms(queue, gradients, part.ranges, squares_.data() + part.first_tensor);
  kernels::squared_norms(queue, parameters, part.ranges, squares_.data() + names_.size() + part.first_tensor);
}

std::span<double> Optimizer::pack_squares(std::size_t first, std::size_t last) {
  const auto count = last - first;
  std::copy_n(squares_.begin() + first, count, message_.begin());
  std::copy_n(squares_.begin() + names_.size() + first, count, message_.begin() + count);
  return std::span(message_).first(2 * count);
}

void Optimizer::unpack_squares(std::size_t first, std::size_t last) {
  const auto count = last - first;
  std::copy_n(message_.begin(), count, squares_.begin() + first);
  std::copy_n(message_.begin() + count, count, squares_.begin() + names_.size() + first);
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

void Optimizer::step(device::Queue& queue, const Part& part, double lr, const float* gradients, float* momenta,
                     float* parameters) {
  if (part.ranges.empty()) return;
  rule_.lr = static_cast<float>(lr);
  kernels::optimizer_update(queue, part.ranges, std::span(skip_).subspan(part.first_tensor, part.ranges.size()),
                            squares_.data() + names_.size() + part.first_tensor, squares_.data() + part.first_tensor,
                            rule_, gradients, momenta, parameters);
}

}  // namespace seer::train
