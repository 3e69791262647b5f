// SPDX-License-Identifier: Apache-2.0
// SwAV's codes, loss and gradient over all ranks (method.md 3). One body for the host and for devices: the whole of it
// is put into the queue, and its numbers are read with one wait.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "seer/comm/block_communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/device/graph.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/device/queue.hpp"
#include "seer/train/embedding_queue.hpp"

namespace seer::train {

class Swav {
 public:
  /// `images`: of this rank; `crops`: per image; `prototypes`, `dim`: of the head. Error(input) as EmbeddingQueue.
  Swav(const config::Swav& config, comm::BlockCommunicator& comm, std::int64_t images, std::int64_t crops,
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
  const Result& loss_and_gradient(device::Pool& pool, std::int64_t update, device::Tensor scores,
                                  device::Tensor embeddings, device::Tensor d_scores, double gradient_scale,
                                  const Score& score);

  /// The update is taken.
  void accept() { embeddings_.accept(); }

  EmbeddingQueue& queue() { return embeddings_; }
  std::size_t bytes() const { return embeddings_.bytes() + largest_.bytes() + numbers_.bytes(); }

 private:
  /// What the host reads of an update, as it lies in numbers_.
  struct Numbers {
    double* loss;        ///< of each crop, summed over images and weighted
    double* entropy;     ///< of each assigned crop's codes, summed over images
    double* total;       ///< of each assigned crop: sum of its exponentials, over all ranks
    double* empty;       ///< of each assigned crop: whether a prototype has no share
    double* trouble;     ///< 1: the assignment met what only repairs mend
    double* prediction;  ///< of each prototype
  };
  Numbers numbers(double* begin) const;
  enum class Repairs : bool { no, yes };

  void collect(device::Pool& pool, device::Tensor scores, const Score& score);
  void assign(const device::GraphKey& key, double* prototype_sums, Repairs repairs);
  bool add_to_empty(double* prototype_sums);
  void losses(device::Tensor scores, device::Tensor code_sum, device::Tensor d_scores, double weight);
  void read_numbers(double gradient_scale);
  std::size_t assigned() const { return config_.crops_for_assign.size(); }
  device::Tensor of_assigned(device::Tensor rows, std::size_t a) const {
    return rows.slice(config_.crops_for_assign[a] * images_, images_);
  }

  config::Swav config_;
  comm::BlockCommunicator* comm_;
  device::Queue work_;
  std::int64_t images_, crops_, prototypes_;
  EmbeddingQueue embeddings_;
  device::Repeated repeated_;  ///< on a device: pieces of the assignment and the loss
  device::Mirrored<double> numbers_;
  device::Buffer largest_;  ///< of each assigned crop's scores

  // Of one call; kept for their memory.
  std::vector<device::Loan> loans_;
  std::vector<device::Tensor> inputs_, codes_;  ///< of the assigned crops: [rows, prototypes]
  Result result_;
};

}  // namespace seer::train
