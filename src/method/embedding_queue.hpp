// SPDX-License-Identifier: Apache-2.0
// SwAV's queue (method.md 3.4): the embeddings of the last updates' assigned crops. Their scores are further rows for
// the assignment. A ring of this rank's rows; gather() and restore() see the queue of all ranks.
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
  /// `images`: of this rank; `dim`: of an embedding. The length is rounded down to a multiple of the global batch;
  /// Error(input) where it is shorter than one, 0 for no queue.
  EmbeddingQueue(const config::Swav& config, const comm::Communicator& comm, std::int64_t images, std::int64_t dim,
                 const device::Queue& work);

  /// This rank's rows of each assigned crop that the assignment is to use: 0 until the queue is full.
  std::int64_t rows() const { return filled_ == length_ ? length_ : 0; }
  /// Those of one assigned crop: [rows(), dim].
  device::Tensor of_crop(std::size_t assigned) const;

  /// This update's embeddings [crops * images, dim] wait for accept(); the queue itself stays as it is.
  void offer(std::int64_t update, device::Tensor embeddings);
  /// The update is taken: its embeddings enter the queue. Those of a skipped update never do.
  void accept();

  /// All ranks' rows as [assigned crops, length, dim]: newest update first, an update's rows in the order of its batch,
  /// whatever the number of ranks. Collective.
  std::vector<float> gather() const;
  /// Its shape; empty without a queue.
  std::vector<std::int64_t> shape() const;
  std::int64_t filled() const { return filled_ * comm_->size(); }
  /// Updates from the ring's begin to where the next one goes; -1 without a queue. Not a function of the update's
  /// number, as skipped updates leave no embeddings.
  std::int64_t place() const { return length_ == 0 ? -1 : next_ / images_; }
  /// From gather() of any number of ranks. A `place` below 0 is not known (older checkpoints): that of a run in which
  /// `update` updates were completed and none was skipped. Error(file) where the length is another.
  void restore(std::span<const float> stored, std::int64_t filled, std::int64_t place, std::int64_t update);

  std::size_t bytes() const { return ring_.bytes() + offered_.bytes(); }
  /// Planned: as after many updates.
  void assume_full() { filled_ = length_; }

 private:
  std::int64_t assigned() const { return static_cast<std::int64_t>(crops_.size()); }
  /// The rows of one update and one assigned crop at `values`.
  device::Tensor update_rows(float* values) const { return {values, {images_, 1, 1, dim_}, DType::f32, work_.space}; }
  /// Where the ring holds the update that came `age` updates before the newest.
  std::int64_t place_of(std::int64_t age) const { return (next_ - (age + 1) * images_ + 2 * length_) % length_; }

  const comm::Communicator* comm_;
  mutable device::Queue work_;
  std::vector<std::int64_t> crops_;  ///< assigned
  std::int64_t images_, dim_, start_update_, configured_length_;
  std::int64_t length_ = 0, filled_ = 0, next_ = 0;  ///< rows of this rank; next_: where the next update goes
  device::Buffer ring_;                              ///< [assigned, length, dim]
  device::Buffer offered_;                           ///< [assigned, images, dim]
  bool offers_ = false;
};

}  // namespace seer::method
