// SPDX-License-Identifier: Apache-2.0
#include "seer/train/swav.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/swav.hpp"

namespace seer::train {

Swav::Swav(const config::Swav& config, const comm::Communicator& comm, std::int64_t images, std::int64_t crops,
           std::int64_t prototypes, std::int64_t dim, const device::Queue& work)
    : config_(config), comm_(&comm), work_(work), images_(images), crops_(crops), prototypes_(prototypes), dim_(dim) {
  if (work.space == device::Space::device) {
    device_.emplace(comm);
    make_numbers();
  }
  const std::int64_t global_batch = images * comm.size();
  if (config.queue_length > 0) {
    local_length_ = config.queue_length / global_batch * images;
    if (local_length_ == 0) {
      throw Error(ExitCode::input,
                  fmt::format("swav.queue_length = {} is shorter than the global batch of {}", config.queue_length,
                              global_batch),
                  "set it to 0 (no queue) or to a multiple of data.global_batch")
          .as_agreed();
    }
    queue_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * local_length_ * dim_), work.space);
    waiting_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * images_ * dim_), work.space);
  }
}

void Swav::sum_over_ranks(std::span<double> values) {
  if (device_) return device_->all_reduce(work_, values.data(), values.size());
  comm_->all_reduce(values);
}

void Swav::sinkhorn(device::Pool& pool, device::Queue& queue) {
  const auto& q = codes_;
  const std::size_t crops = q.size(), k = static_cast<std::size_t>(prototypes_);
  const auto rows_total = static_cast<double>(q[0].rows()) * comm_->size();

  // One maximum over the whole world per crop: a shift per row or rank would change the result.
  largest_.resize(crops);
  for (std::size_t a = 0; a < crops; ++a) largest_[a] = kernels::maximum(queue, inputs_[a]);
  comm_->all_reduce(std::span(largest_), comm::Op::max);
  total_.resize(crops);
  for (std::size_t a = 0; a < crops; ++a) {
    total_[a] =
        kernels::sinkhorn_exponentials(queue, inputs_[a], largest_[a], static_cast<float>(config_.epsilon), q[a]);
  }
  comm_->all_reduce(std::span(total_));
  for (std::size_t a = 0; a < crops; ++a) kernels::scale(queue, q[a], static_cast<float>(1 / total_[a]));

  const auto scratch = pool.bytes(crops * k * sizeof(double));
  const std::span sums(static_cast<double*>(scratch->data), crops * k);
  const auto prototype_sums = [&] {
    for (std::size_t a = 0; a < crops; ++a) kernels::sinkhorn_prototype_sums(queue, q[a], sums.data() + a * k);
    sum_over_ranks(sums);
  };
  for (std::int64_t iteration = 0; iteration < config_.sinkhorn_iterations; ++iteration) {
    prototype_sums();
    bool repaired = false;
    for (std::size_t a = 0; a < crops; ++a) {
      if (!kernels::sinkhorn_any_empty(queue, sums.data() + a * k, prototypes_)) continue;
      kernels::sinkhorn_add(queue, q[a], 1e-12F);  // spec 3.2 step 5; the sums are reduced: equal on all ranks
      repaired = true;
    }
    if (repaired) prototype_sums();
    const bool last = iteration + 1 == config_.sinkhorn_iterations;
    for (std::size_t a = 0; a < crops; ++a) {
      kernels::sinkhorn_factors(queue, sums.data() + a * k, prototypes_);
      kernels::sinkhorn_scale(queue, q[a], sums.data() + a * k, last ? 1.0 : 1.0 / rows_total);
    }
  }
}

const Swav::Result& Swav::loss_and_gradient(device::Pool& pool, device::Queue& queue, std::int64_t update,
                                            device::Tensor scores, device::Tensor embeddings, device::Tensor d_scores,
                                            double gradient_scale, const Score& score) {
  const std::int64_t b = images_, k = prototypes_;
  const bool use_queue = local_length_ > 0 && filled_ == local_length_;
  const std::int64_t rows = b + (use_queue ? local_length_ : 0);

  // Codes: Sinkhorn over the batch's rows with the queue's below them; the first b rows are kept.
  loans_.clear();
  inputs_.clear();
  codes_.clear();
  for (std::size_t a = 0; a < config_.crops_for_assign.size(); ++a) {
    const auto crop_scores = scores.slice(config_.crops_for_assign[a] * b, b);
    loans_.push_back(pool.tensor({rows, 1, 1, k}));
    codes_.push_back(*loans_.back());
    if (!use_queue) {
      inputs_.push_back(crop_scores);
      continue;
    }
    loans_.push_back(pool.tensor({rows, 1, 1, k}));
    const auto joined = *loans_.back();
    kernels::copy(queue, crop_scores, joined.slice(0, b));
    const device::Tensor stored{queue_.f32() + static_cast<std::int64_t>(a) * local_length_ * dim_,
                                {local_length_, 1, 1, dim_},
                                DType::f32,
                                work_.space};
    score(stored, joined.slice(b, local_length_));
    inputs_.push_back(joined);
  }
  // No values on a planned machine, and a plan of 10^8 prototypes would do nothing but write zeros.
  result_.prediction.assign(comm_->ledger() == nullptr ? static_cast<std::size_t>(k) : 0, 0.0);
  const double weight = gradient_scale / (static_cast<double>(b) * comm_->size() * static_cast<double>(assigned()) *
                                          static_cast<double>(crops_ - 1));
  if (!device_ || !without_waiting(pool, queue, scores, d_scores, weight)) {
    sinkhorn(pool, queue);
    result_.loss = result_.code_entropy = 0;
    const auto code_sum = pool.tensor({b, 1, 1, k});
    losses(queue, scores, *code_sum, d_scores, weight, nullptr);
    for (std::size_t a = 0; a < codes_.size(); ++a) {
      const double entropy = kernels::mean_row_entropy(queue, codes_[a].slice(0, b));
      result_.code_entropy += entropy / static_cast<double>(codes_.size());
      kernels::add_predictions(queue, scores.slice(config_.crops_for_assign[a] * b, b),
                               static_cast<float>(config_.temperature), result_.prediction.data());
    }
  }
  result_.loss /= gradient_scale;
  for (auto& p : result_.prediction) p /= static_cast<double>(b * comm_->size() * assigned());

  waits_ = local_length_ > 0 && update >= config_.queue_start_update;
  if (waits_) keep_for_queue(queue, embeddings);
  loans_.clear();
  return result_;
}

/// Every crop predicts the codes of the other assigned crops, which `code_sum` has room for the sum of. Into d_scores,
/// and into result_.loss or, where the queue works, `loss`.
void Swav::losses(device::Queue& queue, device::Tensor scores, device::Tensor code_sum, device::Tensor d_scores,
                  double weight, double* loss) {
  const std::int64_t b = images_;
  const auto temperature = static_cast<float>(config_.temperature);
  for (std::int64_t v = 0; v < crops_; ++v) {
    int count = 0;
    for (std::size_t a = 0; a < codes_.size(); ++a) {
      if (config_.crops_for_assign[a] == v) continue;
      if (count++ == 0) {
        kernels::copy(queue, codes_[a].slice(0, b), code_sum);
      } else {
        kernels::add(queue, codes_[a].slice(0, b), code_sum);
      }
    }
    const auto crop_scores = scores.slice(v * b, b);
    const auto d_crop = d_scores.slice(v * b, b);
    if (count == 0) {  // the only assigned crop predicts nothing
      kernels::fill(queue, d_crop, 0);
    } else if (loss != nullptr) {
      kernels::swav_cross_entropy(queue, crop_scores, code_sum, count, temperature, weight, d_crop, loss);
    } else {
      result_.loss += kernels::swav_cross_entropy(queue, crop_scores, code_sum, count, temperature, weight, d_crop);
    }
  }
}

void Swav::keep_for_queue(device::Queue& queue, device::Tensor embeddings) {
  for (std::int64_t a = 0; a < assigned(); ++a) {
    const auto crop = config_.crops_for_assign[static_cast<std::size_t>(a)];
    kernels::copy(queue, embeddings.slice(crop * images_, images_), rows_of(waiting_.f32() + a * images_ * dim_));
  }
}

void Swav::accept(device::Queue& queue) {
  if (!waits_) return;
  waits_ = false;
  for (std::int64_t a = 0; a < assigned(); ++a) {
    kernels::copy(queue, rows_of(waiting_.f32() + a * images_ * dim_),
                  rows_of(queue_.f32() + (a * local_length_ + next_) * dim_));
  }
  next_ = (next_ + images_) % local_length_;  // local_length_ is a multiple of images_
  filled_ = std::min(filled_ + images_, local_length_);
}

std::vector<std::int64_t> Swav::queue_shape() const {
  if (local_length_ == 0) return {};
  return {assigned(), local_length_ * comm_->size(), dim_};
}

std::vector<float> Swav::gather_queue() const {
  if (local_length_ == 0) return {};
  // Unrolled newest first, so that a reader need not know where the ring stood.
  const std::int64_t part = local_length_ * dim_, pushes = local_length_ / images_;
  std::vector<float> mine(static_cast<std::size_t>(assigned() * part));
  for (std::int64_t a = 0; a < assigned(); ++a) {
    for (std::int64_t age = 0; age < pushes; ++age) {
      const std::int64_t from = (next_ - (age + 1) * images_ + 2 * local_length_) % local_length_;
      device::copy(work_, queue_.f32() + a * part + from * dim_, work_.space,
                   mine.data() + a * part + age * images_ * dim_, device::Space::host, update_bytes());
    }
  }
  work_.wait();
  std::vector<float> by_rank(mine.size() * static_cast<std::size_t>(comm_->size())), out(by_rank.size());
  comm_->all_gather(mine, by_rank);
  // An update's rows together, in the order of its batch: so any number of ranks can take its slices.
  const std::int64_t slice = images_ * dim_, ranks = comm_->size();
  for (std::int64_t r = 0; r < ranks; ++r) {
    for (std::int64_t a = 0; a < assigned(); ++a) {
      for (std::int64_t age = 0; age < pushes; ++age) {
        std::copy_n(by_rank.data() + (r * assigned() + a) * part + age * slice, slice,
                    out.data() + a * ranks * part + (age * ranks + r) * slice);
      }
    }
  }
  return out;
}

void Swav::restore_queue(std::vector<float> stored, std::int64_t filled, std::int64_t place, std::int64_t update) {
  if (local_length_ == 0 || stored.empty()) return;
  const std::int64_t part = local_length_ * dim_, ranks = comm_->size();
  if (static_cast<std::int64_t>(stored.size()) != assigned() * part * ranks) {
    throw Error(ExitCode::file,
                fmt::format("the checkpoint's queue holds {} numbers, wanted {} (swav.queue_length {})", stored.size(),
                            assigned() * part * ranks, config_.queue_length),
                "resume with the queue length of the run that wrote it")
        .as_agreed();
  }
  // The ring is put back as it stood, so that sums over its rows are taken in the same order and a resumed run keeps
  // its bits.
  const std::int64_t pushes = local_length_ / images_;
  if (place < 0) place = std::max<std::int64_t>(0, update - config_.queue_start_update);
  next_ = place % pushes * images_;
  for (std::int64_t a = 0; a < assigned(); ++a) {
    for (std::int64_t age = 0; age < pushes; ++age) {
      const float* mine = stored.data() + a * ranks * part + (age * ranks + comm_->rank()) * images_ * dim_;
      const std::int64_t to = (next_ - (age + 1) * images_ + 2 * local_length_) % local_length_;
      device::copy(work_, mine, device::Space::host, queue_.f32() + a * part + to * dim_, work_.space, update_bytes());
    }
  }
  work_.wait();
  // Whole updates of this batch: the global batch may have been another.
  filled_ = std::min(filled / ranks / images_ * images_, local_length_);
}

}  // namespace seer::train
