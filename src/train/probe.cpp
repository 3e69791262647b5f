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
#include "seer/kernels/optimizer.hpp"

namespace seer::train {
namespace {

bool all_finite(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
}

}  // namespace

Probe::Probe(const nn::Model& model, float most_gradient, const device::Queue& queue)
    : table_(&model.parameters()),
      begins_(model.segment_begins()),
      most_gradient_(most_gradient),
      planned_(queue.space == device::Space::planned) {
  if (queue.space != device::Space::device) return;
  const auto& tensors = table_->entries();
  std::size_t next = 0;
  for (std::size_t s = 0; s + 1 < begins_.size(); ++s) {
    Tensors of{next, next, {}};
    std::vector<kernels::Range> ranges;
    for (; next < tensors.size() && tensors[next].offset < begins_[s + 1]; of.last = ++next) {
      const auto begin = tensors[next].offset - begins_[s];
      ranges.push_back({begin, begin + tensors[next].elems});
    }
    of.there = kernels::FlatRanges(queue.space, ranges);
    tensors_.push_back(std::move(of));
  }
  there_ = device::Buffer((tensors.size() + begins_.size()) * sizeof(double), queue.space);
  here_ = device::PinnedBuffer(there_.bytes());
}

void Probe::begin(bool twice) {
  twice_ = twice;
  pass_ = 0;
  order_ = loss_order_ = 0;
  not_finite_.reset();
  safe_ = true;
  for (auto& digests : digests_) digests.clear();
  forget_kept();
}

void Probe::forget_kept() {
  kept_.clear();
  page_ = used_bytes_ = 0;
}

void Probe::begin_second_pass() {
  pass_ = 1;
  order_ = loss_order_ = 0;
  not_finite_.reset();
  safe_ = true;
  forget_kept();
}

void Probe::enter(Direction direction, std::size_t segment) {
  direction_ = direction;
  segment_ = segment;
}

template <class What>
void Probe::pass(bool finite, const void* values, std::size_t bytes, const What& what) {
  const auto order = order_++;
  if (!finite && !not_finite_) not_finite_ = Finding{order, what()};
  if (twice_ && !planned_) digests_[pass_].push_back({checksum(values, bytes), what()});
}

std::string Probe::at_statistics(Direction direction, std::size_t segment) const {
  return fmt::format("the {} in {}", direction == Direction::forward ? "activations" : "gradients of activations",
                     name_of(segment));
}

void Probe::statistics(device::Queue& queue, std::span<const double> own) {
  if (planned_) return;
  if (queue.space == device::Space::device) {
    if (!twice_) return keep(queue, own);
    own = {static_cast<const double*>(here(queue, own.data(), own.size_bytes())), own.size()};
  }
  const bool finite = not_finite_ || all_finite(own);
  pass(finite, own.data(), own.size_bytes(), [this] { return at_statistics(direction_, segment_); });
}

/// The update that is the first asks for all the memory.
void Probe::keep(device::Queue& queue, std::span<const double> own) {
  constexpr std::size_t kPageBytes = std::size_t{1} << 20;
  while (page_ < pages_.size() && used_bytes_ + own.size_bytes() > pages_[page_].bytes()) {
    ++page_;
    used_bytes_ = 0;
  }
  if (page_ == pages_.size()) pages_.emplace_back(std::max(kPageBytes, own.size_bytes()));
  auto* to = static_cast<char*>(pages_[page_].data()) + used_bytes_;
  device::copy(queue, own.data(), queue.space, to, device::Space::host, own.size_bytes());
  used_bytes_ += own.size_bytes();
  kept_.push_back(
      {Kept::Kind::statistics, order_++, direction_, segment_, {reinterpret_cast<const double*>(to), own.size()}});
}

const void* Probe::here(device::Queue& queue, const void* values, std::size_t bytes) {
  if (queue.space != device::Space::device) return values;
  copied_.resize(bytes);
  device::copy(queue, values, queue.space, copied_.data(), device::Space::host, bytes);
  queue.wait();
  return copied_.data();
}

void Probe::settle(device::Queue& queue) {
  if (queue.space != device::Space::device) return;
  if (!twice_) device::copy(queue, there_.data(), queue.space, here_.data(), device::Space::host, there_.bytes());
  queue.wait();
  if (!twice_) safe_ = !not_finite_ && gradients_are_safe();
}

bool Probe::gradients_are_safe() const {
  const auto most = static_cast<double>(most_gradient_);
  const double* square = squares(here_.data());
  for (std::size_t i = 0; i < table_->entries().size(); ++i) {
    if (!std::isfinite(square[i])) return false;
    if (limit_is_of_range() && square[i] > most * most) return false;
  }
  if (limit_is_of_range()) return true;
  const auto* place = places(here_.data()) + 1;
  return std::all_of(place, place + tensors_.size(), [](std::int64_t at) { return at < 0; });
}

/// Nothing, or what is not finite there.
std::optional<std::string> Probe::wrong_at(const Kept& kept) const {
  switch (kept.kind) {
    case Kept::Kind::statistics:
      if (all_finite(kept.values)) return std::nullopt;
      return at_statistics(kept.direction, kept.segment);
    case Kept::Kind::scores:
      if (*places(here_.data()) < 0) return std::nullopt;
      return "the scores";
    case Kept::Kind::gradients:
      break;
  }
  // The backward pass comes by a segment's tensors in the reverse of the table's order.
  const auto& of = tensors_[kept.segment];
  for (std::size_t i = of.last; i-- > of.first;) {
    if (!std::isfinite(squares(here_.data())[i])) return "the gradient of " + table_->entries()[i].name;
  }
  return std::nullopt;
}

const std::optional<Finding>& Probe::not_finite() {
  for (const auto& kept : kept_) {
    if (not_finite_ && not_finite_->order < kept.order) break;
    if (auto what = wrong_at(kept)) {
      not_finite_ = Finding{kept.order, std::move(*what)};
      break;
    }
  }
  kept_.clear();
  return not_finite_;
}

void Probe::scores(device::Queue& queue, const device::Tensor& own) {
  if (queue.space == device::Space::device && !twice_) {
    kernels::first_beyond(queue, own.f32(), own.elems(), std::numeric_limits<float>::max(), places(there_.data()));
    kept_.push_back({Kept::Kind::scores, order_++, direction_, segment_, {}});
    return;
  }
  const bool finite = not_finite_ || kernels::first_non_finite(queue, own.f32(), own.elems()) < 0;
  const auto bytes = static_cast<std::size_t>(own.bytes());
  pass(finite, twice_ && !planned_ ? here(queue, own.data, bytes) : nullptr, bytes,
       [] { return std::string("the scores"); });
}

void Probe::loss(double own) {
  loss_order_ = order_;
  pass(std::isfinite(own), &own, sizeof own, [] { return std::string("the loss"); });
}

void Probe::gradients(device::Queue& queue, std::size_t segment, const float* own) {
  const auto count = begins_[segment + 1] - begins_[segment];
  if (queue.space == device::Space::device && !twice_) {
    const auto& of = tensors_[segment];
    kernels::squared_norms(queue, of.there, own, squares(there_.data()) + of.first);
    if (!limit_is_of_range()) {
      kernels::first_beyond(queue, own, count, most_gradient_, places(there_.data()) + 1 + segment);
    }
    kept_.push_back({Kept::Kind::gradients, order_++, direction_, segment, {}});
    return;
  }
  const bool safe = !not_finite_ && kernels::first_beyond(queue, own, count, most_gradient_) < 0;
  safe_ = safe_ && safe;
  const bool finite = safe || not_finite_ || kernels::first_non_finite(queue, own, count) < 0;
  const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
  pass(finite, twice_ && !planned_ ? here(queue, own, bytes) : nullptr, bytes, [&] {
    return finite ? "the gradients of " + name_of(segment) : "the gradient of " + first_bad_tensor(queue, segment, own);
  });
}

/// What the names of its tensors begin with: "trunk_output.block2.block2-0".
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

/// The backward pass comes by a segment's tensors in the reverse of the table's order.
std::string Probe::first_bad_tensor(device::Queue& queue, std::size_t segment, const float* own) const {
  const auto& tensors = table_->entries();
  for (auto p = tensors.rbegin(); p != tensors.rend(); ++p) {
    if (p->offset < begins_[segment] || p->offset >= begins_[segment + 1]) continue;
    if (kernels::first_non_finite(queue, own + (p->offset - begins_[segment]), p->elems) >= 0) return p->name;
  }
  return name_of(segment);
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
