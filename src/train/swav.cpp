// SPDX-License-Identifier: Apache-2.0
#include "seer/train/swav.hpp"

#include <algorithm>
#include <cmath>

#include "seer/kernels/activation.hpp"
#include "seer/kernels/swav.hpp"

namespace seer::train {

Swav::Swav(const config::Swav& config, comm::BlockCommunicator& comm, std::int64_t images, std::int64_t crops,
           std::int64_t prototypes, std::int64_t dim, const device::Queue& work)
    : config_(config),
      comm_(&comm),
      work_(work),
      images_(images),
      crops_(crops),
      prototypes_(prototypes),
      embeddings_(config, comm.group(), images, dim, work),
      numbers_(static_cast<std::size_t>(crops + prototypes) + 3 * assigned() + 1, work.space),
      largest_(device::Buffer::floats(assigned(), work.space)) {}

Swav::Numbers Swav::numbers(double* begin) const {
  Numbers at{};
  at.loss = begin;
  at.entropy = at.loss + crops_;
  at.total = at.entropy + assigned();
  at.empty = at.total + assigned();
  at.trouble = at.empty + assigned();
  at.prediction = at.trouble + 1;
  return at;
}

/// The assignment's inputs: the batch's rows of every assigned crop, with the queue's below them.
void Swav::collect(device::Pool& pool, device::Tensor scores, const Score& score) {
  loans_.clear();
  inputs_.clear();
  codes_.clear();
  const std::int64_t stored = embeddings_.rows(), rows = images_ + stored;
  for (std::size_t a = 0; a < assigned(); ++a) {
    loans_.push_back(pool.tensor({rows, 1, 1, prototypes_}));
    codes_.push_back(*loans_.back());
    inputs_.push_back(of_assigned(scores, a));
    if (stored == 0) continue;
    loans_.push_back(pool.tensor({rows, 1, 1, prototypes_}));
    const auto joined = *loans_.back();
    kernels::copy(work_, inputs_.back(), joined.slice(0, images_));
    score(embeddings_.of_crop(a), joined.slice(images_, stored));
    inputs_.back() = joined;
  }
}

/// Sinkhorn (method.md 3.2) on all assigned crops at once, so that their messages travel together. From inputs_ into
/// codes_. A device runs what lies between two messages as one recorded piece of work.
void Swav::assign(const device::GraphKey& key, double* prototype_sums, Repairs repairs) {
  const auto& q = codes_;
  const std::size_t crops = assigned(), k = static_cast<std::size_t>(prototypes_);
  const auto rows_total = static_cast<double>(q[0].rows()) * comm_->size();
  const auto at = numbers(numbers_.on_queue());
  const auto piece = [&](int place, const auto& work) {
    repeated_.run(work_, device::GraphKey(key).add(place), [&] {
      for (std::size_t a = 0; a < crops; ++a) work(a);
    });
  };
  const std::span sums(prototype_sums, crops * k);
  const auto sum_over_rows = [&](std::size_t a) {
    kernels::sinkhorn_prototype_sums(work_, q[a], prototype_sums + a * k);
  };

  // One maximum over all ranks for each crop: a shift that differs from row to row or rank to rank changes the result.
  piece(0, [&](std::size_t a) { kernels::maximum(work_, inputs_[a], largest_.f32() + a); });
  comm_->all_reduce(work_, std::span(largest_.f32(), crops), comm::Op::max);
  piece(1, [&](std::size_t a) {
    const auto epsilon = static_cast<float>(config_.epsilon);
    kernels::sinkhorn_exponentials(work_, inputs_[a], largest_.f32() + a, epsilon, q[a], at.total + a);
  });
  if (repairs == Repairs::yes) {
    numbers_.fetch(work_);
    work_.wait();
    for (std::size_t a = 0; a < crops; ++a) {
      const bool finite = std::isfinite(numbers(numbers_.on_host()).total[a]);
      if (!finite) kernels::sinkhorn_repair(work_, q[a], at.total + a);
    }
  }
  comm_->all_reduce(work_, std::span(at.total, crops));
  piece(2, [&](std::size_t a) {
    kernels::sinkhorn_divide(work_, q[a], at.total + a, at.trouble);
    sum_over_rows(a);
  });
  for (std::int64_t iteration = 0; iteration < config_.sinkhorn_iterations; ++iteration) {
    comm_->all_reduce(work_, sums);
    if (repairs == Repairs::yes && add_to_empty(prototype_sums)) {
      for (std::size_t a = 0; a < crops; ++a) sum_over_rows(a);
      comm_->all_reduce(work_, sums);
    }
    const bool last = iteration + 1 == config_.sinkhorn_iterations;
    piece(last ? 4 : 3, [&](std::size_t a) {
      kernels::sinkhorn_factors(work_, prototype_sums + a * k, prototypes_, at.trouble);
      kernels::sinkhorn_scale(work_, q[a], prototype_sums + a * k, last ? 1.0 : 1.0 / rows_total);
      if (!last) sum_over_rows(a);
    });
  }
}

/// Adds a little to every entry of a crop in which some prototype has no share at all (method.md 3.2 step 5). All ranks
/// see the same sums, and so do the same.
bool Swav::add_to_empty(double* prototype_sums) {
  const std::size_t k = static_cast<std::size_t>(prototypes_);
  for (std::size_t a = 0; a < assigned(); ++a) {
    kernels::sinkhorn_any_empty(work_, prototype_sums + a * k, prototypes_, numbers(numbers_.on_queue()).empty + a);
  }
  numbers_.fetch(work_);
  work_.wait();
  const double* const empty = numbers(numbers_.on_host()).empty;
  for (std::size_t a = 0; a < assigned(); ++a) {
    if (empty[a] != 0) kernels::sinkhorn_add(work_, codes_[a], 1e-12F);
  }
  return std::any_of(empty, empty + assigned(), [](double e) { return e != 0; });
}

/// Every crop predicts the codes of the other assigned crops (method.md 3.3). `code_sum` has room for their sum.
void Swav::losses(device::Tensor scores, device::Tensor code_sum, device::Tensor d_scores, double weight) {
  const auto at = numbers(numbers_.on_queue());
  const auto temperature = static_cast<float>(config_.temperature);
  for (std::int64_t v = 0; v < crops_; ++v) {
    int count = 0;
    for (std::size_t a = 0; a < assigned(); ++a) {
      if (config_.crops_for_assign[a] == v) continue;
      const auto code = codes_[a].slice(0, images_);
      if (count++ == 0) {
        kernels::copy(work_, code, code_sum);
      } else {
        kernels::add(work_, code, code_sum);
      }
    }
    const auto d_crop = d_scores.slice(v * images_, images_);
    if (count == 0) {  // the only assigned crop predicts nothing
      kernels::fill(work_, d_crop, 0);
    } else {
      kernels::swav_cross_entropy(work_, scores.slice(v * images_, images_), code_sum, count, temperature, weight,
                                  d_crop, at.loss + v);
    }
  }
  for (std::size_t a = 0; a < assigned(); ++a) {
    kernels::row_entropies(work_, codes_[a].slice(0, images_), at.entropy + a);
    kernels::add_predictions(work_, of_assigned(scores, a), temperature, at.prediction);
  }
}

const Swav::Result& Swav::loss_and_gradient(device::Pool& pool, std::int64_t update, device::Tensor scores,
                                            device::Tensor embeddings, device::Tensor d_scores, double gradient_scale,
                                            const Score& score) {
  collect(pool, scores, score);
  const auto prototype_sums = pool.bytes(assigned() * static_cast<std::size_t>(prototypes_) * sizeof(double));
  const auto code_sum = pool.tensor({images_, 1, 1, prototypes_});
  const double weight = gradient_scale / (static_cast<double>(images_) * comm_->size() *
                                          static_cast<double>(assigned()) * static_cast<double>(crops_ - 1));
  // Repairs wait for the queue and are rarely needed: only an assignment that met trouble is made again with them.
  for (const auto repairs : {Repairs::no, Repairs::yes}) {
    device::GraphKey key;
    for (const auto& t : inputs_) key.add(t);
    for (const auto& t : codes_) key.add(t);
    key.add(scores).add(d_scores).add(*prototype_sums).add(*code_sum).add(weight);
    kernels::fill(work_, numbers_.view(), 0);  // a double of zero is two floats of zero
    assign(key, static_cast<double*>(prototype_sums->data), repairs);
    repeated_.run(work_, key.add(5), [&] { losses(scores, *code_sum, d_scores, weight); });
    numbers_.fetch(work_);
    work_.wait();
    if (work_.space == device::Space::planned || *numbers(numbers_.on_host()).trouble == 0) break;
  }
  read_numbers(gradient_scale);
  embeddings_.offer(update, embeddings);
  loans_.clear();
  return result_;
}

void Swav::read_numbers(double gradient_scale) {
  result_.loss = result_.code_entropy = 0;
  result_.prediction.clear();
  if (work_.space == device::Space::planned) return;  // no values
  const auto at = numbers(numbers_.on_host());
  for (std::int64_t v = 0; v < crops_; ++v) result_.loss += at.loss[v];
  result_.loss /= gradient_scale;
  for (std::size_t a = 0; a < assigned(); ++a) {
    result_.code_entropy += at.entropy[a] / static_cast<double>(images_) / static_cast<double>(assigned());
  }
  result_.prediction.assign(at.prediction, at.prediction + prototypes_);
  const auto codes = static_cast<double>(images_ * comm_->size() * static_cast<std::int64_t>(assigned()));
  for (auto& p : result_.prediction) p /= codes;
}

}  // namespace seer::train
