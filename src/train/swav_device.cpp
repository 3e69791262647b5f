// SPDX-License-Identifier: Apache-2.0
// Codes and loss on a device: all of it is in the queue before the first number is asked for, and read with one wait.
#include <algorithm>

#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/swav.hpp"
#include "seer/train/swav.hpp"

namespace seer::train {

/// What an update leaves, as it lies in there_ and in here_.
struct Swav::Numbers {
  double *loss, *entropies, *totals, *prediction;
  float* largest;
  std::int32_t* trouble;
  Numbers(void* memory, std::int64_t assigned, std::int64_t prototypes)
      : loss(static_cast<double*>(memory)),
        entropies(loss + 1),
        totals(entropies + assigned),
        prediction(totals + assigned),
        largest(reinterpret_cast<float*>(prediction + prototypes)),
        trouble(reinterpret_cast<std::int32_t*>(largest + assigned)) {}
};

void Swav::make_numbers() {
  const auto doubles = static_cast<std::size_t>(1 + 2 * assigned() + prototypes_);
  const auto bytes = doubles * sizeof(double) + static_cast<std::size_t>(assigned() + 1) * sizeof(float);
  there_ = device::Buffer(bytes, work_.space);
  here_ = device::PinnedBuffer(bytes);
}

/// One launch instead of many from the second time on (device/graph.hpp); collectives, which are counted and watched
/// when they are handed over, lie between the pieces. `place` tells the pieces of an update apart.
template <class Work>
void Swav::piece(device::Queue& queue, device::GraphKey key, int place, const Work& work) {
  repeated_.run(queue, key.add(place), work);
}

/// sinkhorn() with the numbers on the queue.
void Swav::assign_on_queue(device::Queue& queue, const Numbers& there, double* sums, const device::GraphKey& key) {
  const auto& q = codes_;
  const std::size_t crops = q.size(), k = static_cast<std::size_t>(prototypes_);
  const auto rows_total = static_cast<double>(q[0].rows()) * comm_->size();
  piece(queue, key, 0, [&] {
    kernels::fill(queue, there_.view(), 0);
    for (std::size_t a = 0; a < crops; ++a) kernels::maximum(queue, inputs_[a], there.largest + a);
  });
  device_->all_reduce(queue, there.largest, crops, comm::Op::max);
  piece(queue, key, 1, [&] {
    for (std::size_t a = 0; a < crops; ++a) {
      kernels::sinkhorn_exponentials(queue, inputs_[a], there.largest + a, static_cast<float>(config_.epsilon), q[a],
                                     there.totals + a);
    }
  });
  device_->all_reduce(queue, there.totals, crops);
  const auto prototype_sums = [&] {
    for (std::size_t a = 0; a < crops; ++a) kernels::sinkhorn_prototype_sums(queue, q[a], sums + a * k);
  };
  piece(queue, key, 2, [&] {
    for (std::size_t a = 0; a < crops; ++a) kernels::sinkhorn_divide(queue, q[a], there.totals + a, there.trouble);
    prototype_sums();
  });
  for (std::int64_t iteration = 0; iteration < config_.sinkhorn_iterations; ++iteration) {
    device_->all_reduce(queue, sums, crops * k);
    const bool last = iteration + 1 == config_.sinkhorn_iterations;
    piece(queue, key, last ? 4 : 3, [&] {
      for (std::size_t a = 0; a < crops; ++a) {
        kernels::sinkhorn_factors(queue, sums + a * k, prototypes_, there.trouble);
        kernels::sinkhorn_scale(queue, q[a], sums + a * k, last ? 1.0 : 1.0 / rows_total);
      }
      if (!last) prototype_sums();
    });
  }
}

/// False where the assignment met what only the calls that wait repair: sums that overflow, prototypes without a share.
/// All ranks see the same sums, and so come to the same answer.
bool Swav::without_waiting(device::Pool& pool, device::Queue& queue, device::Tensor scores, device::Tensor d_scores,
                           double weight) {
  const Numbers there(there_.data(), assigned(), prototypes_), here(here_.data(), assigned(), prototypes_);
  const auto scratch = pool.bytes(codes_.size() * static_cast<std::size_t>(prototypes_) * sizeof(double));
  const auto code_sum = pool.tensor({images_, 1, 1, prototypes_});
  device::GraphKey key;
  for (const auto& t : inputs_) key.add(t);
  for (const auto& t : codes_) key.add(t);
  key.add(scores).add(d_scores).add(*scratch).add(*code_sum).add(weight);
  assign_on_queue(queue, there, static_cast<double*>(scratch->data), key);
  piece(queue, key, 5, [&] {
    losses(queue, scores, *code_sum, d_scores, weight, there.loss);
    for (std::size_t a = 0; a < codes_.size(); ++a) {
      kernels::mean_row_entropy(queue, codes_[a].slice(0, images_), there.entropies + a);
      kernels::add_predictions(queue, scores.slice(config_.crops_for_assign[a] * images_, images_),
                               static_cast<float>(config_.temperature), there.prediction, kernels::Results::on_queue);
    }
  });
  device::copy(queue, there_.data(), queue.space, here_.data(), device::Space::host, there_.bytes());
  queue.wait();
  if (*here.trouble != 0) return false;
  result_.loss = *here.loss;
  result_.code_entropy = 0;
  for (std::int64_t a = 0; a < assigned(); ++a) {
    result_.code_entropy += here.entropies[a] / static_cast<double>(assigned());
  }
  std::copy_n(here.prediction, prototypes_, result_.prediction.begin());
  return true;
}

}  // namespace seer::train
