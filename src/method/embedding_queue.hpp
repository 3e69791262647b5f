// SPDX-License-Identifier: Apache-2.0
// SwAV's queue (method.md 3.4): the embeddings of the assigned crops of the last updates. Their scores are extra rows
// for the assignment. Each rank holds its rows in a ring; save() and restore() handle the queue of all ranks.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::method {

class EmbeddingQueue {
 public:
  /// `images`: on this rank; `dim`: size of an embedding. Rounds the queue length down to a multiple of the global
  /// batch. Length 0: no queue. Error(input) if the length is shorter than one global batch.
  EmbeddingQueue(const config::Swav& config, const comm::Communicator& comm, std::int64_t images, std::int64_t dim,
                 const device::Queue& work)
      : comm_(&comm), work_(work), config_(config), images_(images), dim_(dim) {
    if (config.queue_length == 0) return;
    const std::int64_t global_batch = images * comm.size();
    length_ = config.queue_length / global_batch * images;
    if (length_ == 0) {
      throw Error(ExitCode::input,
                  fmt::format("swav.queue_length = {} is shorter than the global batch of {}", config.queue_length,
                              global_batch),
                  "set it to 0 (no queue) or to a multiple of data.global_batch")
          .as_agreed();
    }
    ring_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * length_ * dim_), work.space);
    offered_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * images_ * dim_), work.space);
  }

  /// Number of this rank's rows, per assigned crop, for the assignment to use: 0 until the queue is full.
  std::int64_t rows() const { return filled_ == length_ ? length_ : 0; }
  /// The rows of one assigned crop: [rows(), dim].
  device::Tensor of_crop(std::size_t assigned) const {
    return rows_at(ring_.f32() + static_cast<std::int64_t>(assigned) * length_ * dim_, length_);
  }

  /// Holds this update's embeddings [crops * images, dim] until accept(). The queue does not change yet.
  void offer(std::int64_t update, device::Tensor embeddings) {
    offers_ = length_ > 0 && update >= config_.queue_start_update;
    for (std::int64_t a = 0; offers_ && a < assigned(); ++a) {
      const auto crop = config_.crops_for_assign[static_cast<std::size_t>(a)];
      kernels::copy(work_, embeddings.slice(crop * images_, images_), offered(a));
    }
  }
  /// The update was applied: adds its embeddings to the queue. Those of a skipped update never enter it.
  void accept() {
    if (!offers_) return;
    offers_ = false;
    for (std::int64_t a = 0; a < assigned(); ++a)
      kernels::copy(work_, offered(a), rows_at(ring_.f32() + (a * length_ + next_) * dim_, images_));
    next_ = (next_ + images_) % length_;  // length_ is a multiple of images_
    filled_ = std::min(filled_ + images_, length_);
  }

  /// Collective. Saves all ranks' rows as [assigned crops, length, dim]: newest update first, and within an update in
  /// batch order, for any number of ranks.
  void save(checkpoint::NamedState& state) const {
    state.numbers["queue_filled"] = filled_ * comm_->size();
    if (length_ == 0) return;
    // The ring's slot for the next update. Skipped updates count no slot, as they add no embeddings.
    state.numbers["queue_place"] = next_ / images_;
    const auto slice = static_cast<std::size_t>(images_ * dim_);
    std::vector<float> mine(static_cast<std::size_t>(assigned() * length_ * dim_));
    float* to = mine.data();
    each_slice(comm_->rank(), [&](std::int64_t ring, std::int64_t) {
      device::copy(work_, ring_.f32() + ring, work_.space, to, device::Space::host, slice * sizeof(float));
      to += slice;
    });
    work_.wait();
    std::vector<float> by_rank(mine.size() * static_cast<std::size_t>(comm_->size())), out(by_rank.size());
    comm_->all_gather(mine, by_rank);
    const float* from = by_rank.data();
    for (int r = 0; r < comm_->size(); ++r) {
      each_slice(r, [&](std::int64_t, std::int64_t all) {
        std::copy_n(from, slice, out.data() + all);
        from += slice;
      });
    }
    state.tensors["queue"] = {{assigned(), length_ * comm_->size(), dim_}, std::move(out)};
  }
  /// Restores what save() saved on any number of ranks, after `update` completed updates. Error(file) if the queue
  /// length differs.
  void restore(const checkpoint::NamedState& state, std::int64_t update) {
    const auto queue = state.tensors.find("queue");
    if (length_ == 0 || queue == state.tensors.end() || queue->second.values.empty()) return;
    const auto& stored = queue->second.values;
    if (const auto wanted = assigned() * length_ * dim_ * comm_->size(); std::ssize(stored) != wanted) {
      throw Error(ExitCode::file,
                  fmt::format("the checkpoint's queue holds {} numbers, wanted {} (swav.queue_length {})",
                              stored.size(), wanted, config_.queue_length),
                  "resume with the queue length of the run that wrote it")
          .as_agreed();
    }
    // Restores the ring's position too: sums over its rows have the same order, so a resumed run has the same bits.
    // Older checkpoints do not have it: then no completed update counts as skipped.
    const auto place = state.numbers.find("queue_place");
    const bool known = place != state.numbers.end() && place->second >= 0;
    const auto slot = known ? place->second : std::max<std::int64_t>(0, update - config_.queue_start_update);
    next_ = slot % (length_ / images_) * images_;
    each_slice(comm_->rank(), [&](std::int64_t ring, std::int64_t all) {
      device::copy(work_, stored.data() + all, device::Space::host, ring_.f32() + ring, work_.space,
                   static_cast<std::size_t>(images_ * dim_) * sizeof(float));
    });
    work_.wait();
    // Rounded to whole updates, because the global batch may have changed.
    filled_ = std::min(state.numbers.at("queue_filled") / comm_->size() / images_ * images_, length_);
  }

  std::size_t bytes() const { return ring_.bytes() + offered_.bytes(); }
  /// For planning memory: marks the queue as full.
  void assume_full() { filled_ = length_; }

 private:
  std::int64_t assigned() const { return std::ssize(config_.crops_for_assign); }
  device::Tensor rows_at(float* values, std::int64_t rows) const {
    return {values, {rows, 1, 1, dim_}, DType::f32, work_.space};
  }
  device::Tensor offered(std::int64_t a) const { return rows_at(offered_.f32() + a * images_ * dim_, images_); }
  /// Calls use(ring, all) for each update of each assigned crop, newest first: where the rows of `rank` begin in its
  /// ring, and in the saved tensor. There the rows of all ranks are grouped by update, in batch order, so that
  /// any number of ranks can take their slices, and a reader need not know the ring's position.
  void each_slice(int rank, const auto& use) const {
    for (std::int64_t a = 0; a < assigned(); ++a) {
      for (std::int64_t age = 0; age < length_ / images_; ++age) {
        const auto newest = next_ - (age + 1) * images_ + 2 * length_;
        const auto in_order = (a * length_ + age * images_) * comm_->size() + rank * images_;
        use((a * length_ + newest % length_) * dim_, in_order * dim_);
      }
    }
  }

  const comm::Communicator* comm_;
  mutable device::Queue work_;
  config::Swav config_;
  std::int64_t images_, dim_;
  std::int64_t length_ = 0, filled_ = 0, next_ = 0;  ///< rows on this rank; next_: for the next update
  device::Buffer ring_;                              ///< [assigned, length, dim]
  device::Buffer offered_;                           ///< [assigned, images, dim]
  bool offers_ = false;
};

}  // namespace seer::method
