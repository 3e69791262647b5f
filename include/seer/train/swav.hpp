// SPDX-License-Identifier: Apache-2.0
// SwAV's codes, loss and gradient over all ranks (spec 3), and the queue.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/comm/device_communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/graph.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/pinned.hpp"
#include "seer/device/queue.hpp"

namespace seer::train {

class Swav {
 public:
  /// `images`: of this rank; `crops`: per image; `prototypes`, `dim`: of the head. The queue's length is rounded down
  /// to a multiple of the global batch (Error(input) where it is shorter than one). Collective on a device.
  Swav(const config::Swav& config, const comm::Communicator& comm, std::int64_t images, std::int64_t crops,
       std::int64_t prototypes, std::int64_t dim, const device::Queue& work);

  struct Result {
    double loss = 0;                 ///< this rank's share: the global loss is the SUM over ranks
    double code_entropy = 0;         ///< mean entropy (nats) of this rank's codes; ln K when they say nothing
    std::vector<double> prediction;  ///< this rank's share of the mean predicted distribution over prototypes
  };
  /// Computes scores of embeddings [rows, dim] into scores [rows, prototypes].
  using Score = std::function<void(device::Tensor embeddings, device::Tensor scores)>;

  /// scores, d_scores: [crops * images, prototypes], row = crop * images + image; embeddings [crops * images, dim].
  /// d_scores is the gradient of the global mean loss (already divided by the number of ranks: gradients are summed)
  /// times `gradient_scale`.
  /// Collective. This update's embeddings wait for accept(); until then nothing has changed, and it may be done again.
  /// The result is overwritten by the next.
  const Result& loss_and_gradient(device::Pool& pool, device::Queue& queue, std::int64_t update, device::Tensor scores,
                                  device::Tensor embeddings, device::Tensor d_scores, double gradient_scale,
                                  const Score& score);

  /// The update is taken: its embeddings enter the queue. Those of one that is skipped never do.
  void accept(device::Queue& queue);

  /// The queue of all ranks as [assigned crops, length, dim], newest update first, an update's rows in the
  /// order of its batch, whatever the number of ranks. Collective.
  std::vector<float> gather_queue() const;
  /// Its shape; empty without a queue.
  std::vector<std::int64_t> queue_shape() const;
  std::int64_t queue_filled() const { return filled_ * comm_->size(); }
  /// Updates from the ring's begin to where the next one goes; -1 without a queue. Not a function of the update's
  /// number, as skipped updates leave no embeddings.
  std::int64_t queue_place() const { return local_length_ == 0 ? -1 : next_ / images_; }
  std::size_t queue_bytes() const { return queue_.bytes() + waiting_.bytes() + there_.bytes(); }
  void assume_full_queue() { filled_ = local_length_; }
  /// From gather_queue() of any number of ranks. A `place` below 0 is not known (older checkpoints): that of a run in
  /// which `update` updates were completed and none was skipped.
  void restore_queue(std::vector<float> queue, std::int64_t filled, std::int64_t place, std::int64_t update);

 private:
  std::int64_t assigned() const { return static_cast<std::int64_t>(config_.crops_for_assign.size()); }
  /// Sinkhorn on all assigned crops at once: their messages travel packed. From inputs_ into codes_.
  void sinkhorn(device::Pool& pool, device::Queue& queue);
  void losses(device::Queue& queue, device::Tensor scores, device::Tensor code_sum, device::Tensor d_scores,
              double weight, double* loss);
  struct Numbers;
  void make_numbers();
  template <class Work>
  void piece(device::Queue& queue, device::GraphKey key, int place, const Work& work);
  void assign_on_queue(device::Queue& queue, const Numbers& there, double* sums, const device::GraphKey& key);
  bool without_waiting(device::Pool& pool, device::Queue& queue, device::Tensor scores, device::Tensor d_scores,
                       double weight);
  void keep_for_queue(device::Queue& queue, device::Tensor embeddings);
  /// The embeddings of one update and one assigned crop, as they lie in the queue.
  device::Tensor rows_of(float* values) const { return {values, {images_, 1, 1, dim_}, DType::f32, work_.space}; }
  std::size_t update_bytes() const { return static_cast<std::size_t>(images_ * dim_) * sizeof(float); }
  /// Sums over all ranks of what lies where the queue works.
  void sum_over_ranks(std::span<double> values);

  config::Swav config_;
  const comm::Communicator* comm_;
  mutable device::Queue work_;
  std::optional<comm::DeviceCommunicator> device_;  ///< the ranks of comm_, and counted as it
  std::int64_t images_, crops_, prototypes_, dim_;
  std::int64_t local_length_ = 0, filled_ = 0, next_ = 0;  // rows of this rank's queue; next_: where the next push goes
  device::Buffer queue_;                                   // [assigned, local_length, dim], a ring
  device::Buffer waiting_;                                 // [assigned, images, dim]
  bool waits_ = false;
  device::Repeated repeated_;  ///< on a device: pieces of the assignment and the loss
  device::Buffer there_;       ///< of a device: numbers that an update leaves
  device::PinnedBuffer here_;  ///< the same on the host

  // Of one call; kept for their memory.
  std::vector<device::Loan> loans_;
  std::vector<device::Tensor> inputs_, codes_;  ///< of the assigned crops: [rows, prototypes]
  std::vector<float> largest_;
  std::vector<double> total_;
  Result result_;
};

}  // namespace seer::train
