// SPDX-License-Identifier: Apache-2.0
#include "seer/train/probe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"
#include "seer/device/copy.hpp"

namespace seer::train {
namespace {

bool all_finite(std::span<const double> values) {
  return std::ranges::all_of(values, [](double x) { return std::isfinite(x); });
}

}  // namespace

Probe::Probe(const nn::Model& model, float most_gradient, const device::Queue& queue)
    : table_(&model.parameters()),
      begins_(model.segment_begins()),
      most_gradient_(most_gradient),
      planned_(queue.space == device::Space::planned),
      squares_(table_->entries().size(), queue.space),
      places_(begins_.size(), queue.space) {
  for (std::size_t s = 0; s + 1 < begins_.size(); ++s)
    segments_.push_back(Optimizer::part(*table_, begins_[s], begins_[s + 1], queue.space));
}

void Probe::begin_pass(int pass) {
  pass_ = pass;
  order_ = loss_order_ = 0;
  not_finite_.reset();
  safe_ = true;
  passed_.clear();
  page_ = used_bytes_ = 0;
}

/// If passes are done twice: a checksum to compare them by. Waits for a device.
void Probe::digest(device::Queue& queue, const void* values, std::size_t bytes, const std::string& what) {
  if (!twice_ || planned_) return;
  if (queue.space == device::Space::device) {
    copied_.resize(bytes);
    device::copy(queue, values, queue.space, copied_.data(), device::Space::host, bytes);
    queue.wait();
    values = copied_.data();
  }
  digests_[pass_].push_back({checksum(values, bytes), what});
}

std::string Probe::at_statistics(Direction direction, std::size_t segment) const {
  return fmt::format("the {} in {}", direction == Direction::forward ? "activations" : "gradients of activations",
                     name_of(segment));
}

/// The sums will be added to other ranks', in place. So the host checks them at once; on a device, a copy is kept.
void Probe::statistics(device::Queue& queue, std::span<const double> own) {
  if (planned_) return;
  digest(queue, own.data(), own.size_bytes(), twice_ ? at_statistics(direction_, segment_) : "");
  if (queue.space == device::Space::device) return pass(Passed::Kind::statistics, copied(queue, own));
  if (!not_finite_ && !all_finite(own)) not_finite_ = Finding{order_, at_statistics(direction_, segment_)};
  ++order_;
}

/// The first update allocates all pages.
std::span<const double> Probe::copied(device::Queue& queue, std::span<const double> own) {
  constexpr std::size_t kPageBytes = std::size_t{1} << 20;
  while (page_ < pages_.size() && used_bytes_ + own.size_bytes() > pages_[page_].bytes()) {
    ++page_;
    used_bytes_ = 0;
  }
  if (page_ == pages_.size()) pages_.emplace_back(std::max(kPageBytes, own.size_bytes()));
  auto* to = static_cast<char*>(pages_[page_].data()) + used_bytes_;
  device::copy(queue, own.data(), queue.space, to, device::Space::host, own.size_bytes());
  used_bytes_ += own.size_bytes();
  return {reinterpret_cast<const double*>(to), own.size()};
}

void Probe::output(device::Queue& queue, const device::Tensor& own) {
  digest(queue, own.data, static_cast<std::size_t>(own.bytes()), twice_ ? "the output of the head" : "");
  kernels::first_beyond(queue, own.f32(), own.elems(), std::numeric_limits<float>::max(), places_.on_queue());
  pass(Passed::Kind::output);
}

void Probe::loss(double own) {
  if (twice_ && !planned_) digests_[pass_].push_back({checksum(&own, sizeof own), "the loss"});
  if (!not_finite_ && !std::isfinite(own)) not_finite_ = Finding{order_, "the loss"};
  loss_order_ = order_++;
}

void Probe::gradients(device::Queue& queue, std::size_t segment, const float* own) {
  const auto count = begins_[segment + 1] - begins_[segment];
  digest(queue, own, static_cast<std::size_t>(count) * sizeof(float),
         twice_ ? "the gradients of " + name_of(segment) : "");
  const auto& of = segments_[segment];
  kernels::squared_norms(queue, of.ranges, own, squares_.on_queue() + of.first_tensor);
  if (!limit_is_of_range()) kernels::first_beyond(queue, own, count, most_gradient_, places_.on_queue() + 1 + segment);
  pass(Passed::Kind::gradients);
}

void Probe::settle(device::Queue& queue) {
  squares_.fetch(queue);
  places_.fetch(queue);
  queue.wait();
  safe_ = planned_ || (!not_finite_ && gradients_are_safe());
}

bool Probe::gradients_are_safe() const {
  const auto most = static_cast<double>(most_gradient_);
  const double most_square = limit_is_of_range() ? most * most : std::numeric_limits<double>::max();
  const auto good = [&](double square) { return square <= most_square; };  // false for NaN
  if (!std::ranges::all_of(std::span(squares_.on_host(), squares_.size()), good)) return false;
  const std::span places(places_.on_host(), places_.size());
  return limit_is_of_range() || std::ranges::all_of(places.subspan(1), [](std::int64_t at) { return at < 0; });
}

std::optional<std::string> Probe::wrong_at(const Passed& point) const {
  if (point.kind == Passed::Kind::statistics)
    return all_finite(point.values) ? std::nullopt : std::optional(at_statistics(point.direction, point.segment));
  if (point.kind == Passed::Kind::output)
    return *places_.on_host() < 0 ? std::nullopt : std::optional<std::string>("the output of the head");
  // The backward pass handles the tensors of a segment in reverse order of the table.
  const auto& of = segments_[point.segment];
  for (std::size_t i = of.end_tensor(); i-- > of.first_tensor;)
    if (!std::isfinite(squares_.on_host()[i])) return "the gradient of " + table_->entries()[i].name;
  return std::nullopt;
}

const std::optional<Finding>& Probe::not_finite() {
  for (const auto& point : passed_) {
    if (planned_ || (not_finite_ && not_finite_->order < point.order)) break;
    if (auto what = wrong_at(point)) {
      not_finite_ = Finding{point.order, std::move(*what)};
      break;
    }
  }
  passed_.clear();
  return not_finite_;
}

/// The common beginning of its tensors' names: "trunk_output.block2.block2-0".
std::string Probe::name_of(std::size_t segment) const {
  std::string common;
  for (const auto& p : table_->entries()) {
    if (p.offset < begins_[segment] || p.offset >= begins_[segment + 1]) continue;
    const auto parent = p.name.substr(0, p.name.rfind('.'));
    if (common.empty()) common = parent;
    while (parent != common && !parent.starts_with(common + ".")) {
      const auto dot = common.rfind('.');
      if (dot == std::string::npos) return common;
      common.resize(dot);
    }
  }
  return common;
}

std::optional<Finding> Probe::difference() const {
  const auto points = std::min(digests_[0].size(), digests_[1].size());
  for (std::size_t i = 0; i < points; ++i) {
    if (digests_[0][i].checksum == digests_[1][i].checksum) continue;
    return Finding{static_cast<std::int64_t>(i), digests_[1][i].what};
  }
  return std::nullopt;
}

std::vector<Culprit> earliest(const comm::Communicator& comm, const std::optional<Finding>& mine,
                              const std::vector<std::uint64_t>& images) {
  constexpr auto kNone = std::numeric_limits<std::int64_t>::max();
  const auto first = comm.all_reduce(mine ? mine->order : kNone, comm::Op::min);
  if (first == kNone) return {};
  std::string text;
  if (mine && mine->order == first) {
    text = nlohmann::json{{"host", log::host_name()}, {"what", mine->what}, {"images", images}}.dump(
        -1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  std::vector<Culprit> out;
  const auto texts = comm.all_gather(text);
  for (std::size_t r = 0; r < texts.size(); ++r) {
    if (texts[r].empty()) continue;
    const auto tree = nlohmann::json::parse(texts[r]);
    out.push_back(
        {static_cast<int>(r), tree.at("host"), tree.at("what"), tree.at("images").get<std::vector<std::uint64_t>>()});
  }
  return out;
}

}  // namespace seer::train
