// SPDX-License-Identifier: Apache-2.0
// SwAV's queue (method.md 3.4): the embeddings of the assigned crops of the last updates. Their scores are extra rows
// for the assignment. Each rank holds its rows in a ring; gather() and restore() handle the queue of all ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/queue.hpp"

namespace seer::method {

class EmbeddingQueue {
 public:
  /// `images`: on this rank; `dim`: size of an embedding. Rounds the queue length down to a multiple of the global
  /// batch. Length 0: no queue. Error(input) if the length is shorter than one global batch.
  EmbeddingQueue(const config::Swav& config, const comm::Communicator& comm, std::int64_t images, std::int64_t dim,
                 const device::Queue& work);

  /// Number of this rank's rows, per assigned crop, for the assignment to use: 0 until the queue is full.
  std::int64_t rows() const { return filled_ == length_ ? length_ : 0; }
  /// The rows of one assigned crop: [rows(), dim].
  device::Tensor of_crop(std::size_t assigned) const;

  /// Holds this update's embeddings [crops * images, dim] until accept(). The queue does not change yet.
  void offer(std::int64_t update, device::Tensor embeddings);
  /// The update was applied: adds its embeddings to the queue. Those of a skipped update never enter it.
  void accept();

  /// Collective. Returns all ranks' rows as [assigned crops, length, dim]: newest update first, and within an update in
  /// batch order, for any number of ranks.
  std::vector<float> gather() const;
  /// The shape of gather()'s result; empty without a queue.
  std::vector<std::int64_t> shape() const;
  std::int64_t filled() const { return filled_ * comm_->size(); }
  /// The ring's slot, in updates, for the next update; -1 without a queue. It does not follow from the update's number,
  /// because skipped updates add no embeddings.
  std::int64_t place() const { return length_ == 0 ? -1 : next_ / images_; }
  /// Restores the result of gather() from any number of ranks. If `place` is unknown (below 0, older checkpoints),
  /// assumes that none of the `update` completed updates was skipped. Error(file) if the queue length differs.
  void restore(std::span<const float> stored, std::int64_t filled, std::int64_t place, std::int64_t update);

  std::size_t bytes() const { return ring_.bytes() + offered_.bytes(); }
  /// For planning memory: marks the queue as full.
  void assume_full() { filled_ = length_; }

 private:
  std::int64_t assigned() const { return static_cast<std::int64_t>(crops_.size()); }
  /// The tensor at `values` of one update's rows for one assigned crop.
  device::Tensor update_rows(float* values) const { return {values, {images_, 1, 1, dim_}, DType::f32, work_.space}; }
  /// The first ring row of the update that came `age` updates before the newest.
  std::int64_t place_of(std::int64_t age) const { return (next_ - (age + 1) * images_ + 2 * length_) % length_; }

  const comm::Communicator* comm_;
  mutable device::Queue work_;
  std::vector<std::int64_t> crops_;  ///< the assigned crops
  std::int64_t images_, dim_, start_update_, configured_length_;
  std::int64_t length_ = 0, filled_ = 0, next_ = 0;  ///< rows on this rank; next_: for the next update
  device::Buffer ring_;                              ///< [assigned, length, dim]
  device::Buffer offered_;                           ///< [assigned, images, dim]
  bool offers_ = false;
};

}  // namespace seer::method
