// SPDX-License-Identifier: Apache-2.0
// Finds where a number went bad first. After a sum over ranks, all ranks have the NaN of one. So each rank checks its
// own numbers just before they meet those of others: the sums of its BatchNorms, the output of its heads, its loss, and
// its gradients, segment by segment. Every rank passes these points in the same order, so the rank with the earliest
// finding is the origin.
//
// Nothing waits for a device at these points: the checks are put into the queue, and read after the passes. But if an
// update does its passes twice (guard.replay_every), the points of both are also compared by checksum, which waits.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/device/tensor.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/optimizer.hpp"
#include "seer/train/phases.hpp"

namespace seer::train {

struct Finding {
  std::int64_t order = 0;  ///< of the point, the same on all ranks
  std::string what;        ///< "the gradient of stem.0.weight"
};

class Probe {
 public:
  /// A planned queue has no values to check. `most_gradient`: larger ones of several ranks may have an infinite sum.
  Probe(const nn::Model& model, float most_gradient, const device::Queue& queue);

  /// Begins an update that does its passes once or twice.
  void begin(bool twice) {
    twice_ = twice;
    for (auto& digests : digests_) digests.clear();
    begin_pass(0);
  }
  /// Ends the first of two passes. Forgets its findings: only the second pass counts.
  void begin_second_pass() { begin_pass(1); }
  bool second_pass() const { return pass_ == 1; }

  /// Where the passes are now.
  void enter(Direction direction, std::size_t segment) {
    direction_ = direction;
    segment_ = segment;
  }
  /// The points to check.
  void statistics(device::Queue& queue, std::span<const double> own);
  void output(device::Queue& queue, const device::Tensor& own);
  void loss(double own);
  /// All gradients of the segment, which begin at `own`.
  void gradients(device::Queue& queue, std::size_t segment, const float* own);

  /// Squared norms of each tensor's own gradient, in the queue's memory.
  const double* squares() const { return squares_.on_queue(); }

  /// Waits for the queue. Call before the functions below.
  void settle(device::Queue& queue);
  /// The first point with a number that is not finite, in the pass that counts.
  const std::optional<Finding>& not_finite();
  /// True if the sums over ranks of this pass's gradients are certainly finite, as far as this rank can tell.
  bool sums_are_safe() const { return safe_; }
  /// True if not_finite() is at the loss or before it.
  bool before_loss() { return not_finite() && not_finite_->order <= loss_order_; }
  /// The first point at which the two passes differ.
  std::optional<Finding> difference() const;

 private:
  struct Digest {
    std::uint64_t checksum = 0;
    std::string what;
  };
  /// A point whose numbers have not been checked yet.
  struct Passed {
    enum class Kind : std::uint8_t { statistics, output, gradients } kind = Kind::statistics;
    std::int64_t order = 0;
    Direction direction = Direction::forward;
    std::size_t segment = 0;
    std::span<const double> values;  ///< sums of BatchNorms
  };
  void pass(Passed::Kind kind, std::span<const double> values = {}) {
    passed_.push_back({kind, order_++, direction_, segment_, values});
  }
  void begin_pass(int pass);
  void digest(device::Queue& queue, const void* values, std::size_t bytes, const std::string& what);
  std::span<const double> copied(device::Queue& queue, std::span<const double> own);
  bool gradients_are_safe() const;
  /// What is not finite at this point; nothing if all is finite.
  std::optional<std::string> wrong_at(const Passed& point) const;
  std::string at_statistics(Direction direction, std::size_t segment) const;
  std::string name_of(std::size_t segment) const;
  /// True if the sum of a tensor's squares is enough to tell whether an element is above the limit.
  bool limit_is_of_range() const { return most_gradient_ > 1e30F; }

  const nn::ParameterTable* table_;
  std::vector<std::int64_t> begins_;
  float most_gradient_;
  bool planned_, twice_ = false, safe_ = true;
  int pass_ = 0;
  Direction direction_ = Direction::forward;
  std::size_t segment_ = 0;
  std::int64_t order_ = 0, loss_order_ = 0;
  std::optional<Finding> not_finite_;
  std::vector<Digest> digests_[2];
  std::vector<Passed> passed_;
  std::vector<device::PinnedBuffer> pages_;  ///< device: copies of BatchNorm sums; reused by every update
  std::size_t page_ = 0, used_bytes_ = 0;    ///< the page in use
  std::vector<char> copied_;
  std::vector<Optimizer::Part> segments_;
  device::Mirrored<double> squares_;       ///< squared norm of every tensor's own gradient
  device::Mirrored<std::int64_t> places_;  ///< of too large numbers: in the output, then per segment
};

/// The origin of a fault.
struct Culprit {
  int rank = -1;  ///< negative: no single rank
  std::string host, what;
  std::vector<std::uint64_t> images;  ///< indices in the data set of that rank's part of the batch
};

/// Collective. Returns the ranks with the earliest finding; empty if no rank has one.
std::vector<Culprit> earliest(const comm::Communicator& comm, const std::optional<Finding>& mine,
                              const std::vector<std::uint64_t>& images);

/// Injects the faults that the configuration orders ([faults]), to rehearse how the guard handles real ones.
class Faults {
 public:
  /// On a planned communicator, there are no faults.
  Faults(const config::Faults& config, const comm::Communicator& comm)
      : config_(config),
        nan_here_(!config.nan_updates.empty() && config.nan_rank % comm.size() == comm.rank()),
        flip_here_(config.flip_update > 0 && config.flip_rank % comm.size() == comm.rank()) {
    if (comm.ledger() != nullptr) nan_here_ = flip_here_ = false;
  }

  /// `gradient`: one element of this rank's own gradient, before the sum over ranks. A listed update is struck each
  /// time it is computed, as a bad batch would be: NaN in both passes of a replay; the flip of the lowest bit in the
  /// second pass only. `update` counts from 1.
  void strike(device::Queue& queue, std::int64_t update, bool second_pass, float* gradient) const {
    const auto there = device::view(gradient, 1, queue.space);
    const auto& nans = config_.nan_updates;
    if (nan_here_ && std::ranges::find(nans, update) != nans.end())
      kernels::fill(queue, there, std::numeric_limits<float>::quiet_NaN());
    if (flip_here_ && second_pass && config_.flip_update == update) {
      float value = 0;
      const device::Tensor here{.data = &value, .shape = {1, 1, 1, 1}};
      kernels::copy(queue, there, here);
      queue.wait();
      value = std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) ^ 1U);
      kernels::copy(queue, here, there);
    }
  }

 private:
  config::Faults config_;
  bool nan_here_, flip_here_;
};

}  // namespace seer::train
