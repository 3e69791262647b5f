// SPDX-License-Identifier: Apache-2.0
// The update of the flat blocks: norms and steps, bucket by bucket as the sums over ranks arrive.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/train/flat_state.hpp"

namespace seer::train {

/// Waits for the sums of the buckets down to `bucket` and takes squared norms. A tensor lies in one bucket, so the
/// time of measuring does not influence a single bit.
void FlatState::measure_down_to(std::size_t bucket) {
  while (measured_ > bucket) {
    auto& b = buckets_[measured_ - 1];
    wait(Phase::reduce, std::exchange(b.sum, 0));
    const auto timer = phases_->time(Phase::optimizer);
    if (shards(Sharding::gradients)) {
      kernels::copy(queue_, view(own_part(b, whole_gradients_of(b)), b.own_elems()),
                    view(own_gradients(b), b.own_elems()));
    }
    if (known_squares_ != nullptr)
      optimizer_.take_gradient_squares(queue_, b.part, known_squares_);
    else
      optimizer_.measure_gradients(queue_, b.part, own_gradients(b));
    if (!b.measured) optimizer_.measure_parameters(queue_, b.part, own_parameters(b));
    --measured_;
  }
}

/// Measures the buckets whose sum has arrived.
void FlatState::measure_arrived() {
  while (measured_ > closed_ && stream_.done(buckets_[measured_ - 1].sum)) measure_down_to(measured_ - 1);
}

/// Sums the norms of tensors that are split over a group: one message for all buckets not yet known.
void FlatState::know_norms_down_to(std::size_t bucket) {
  if (known_ <= bucket) return;
  measure_down_to(bucket);
  if (norms_.size() > 1) {
    const auto timer = phases_->time(Phase::reduce);
    const auto first = buckets_[bucket].first_tensor, last = buckets_[known_ - 1].last_tensor;
    norms_.all_reduce(queue_, optimizer_.pack_squares(queue_, first, last));
    optimizer_.unpack_squares(queue_, first, last);
  }
  known_ = bucket;
}

double FlatState::gradient_norm() {
  know_norms_down_to(0);
  optimizer_.read_squares(queue_);
  return optimizer_.gradient_norm();
}

float FlatState::most_gradient() const {
  constexpr float kMostHalf = 65504;
  const float most = wire_ == DType::f16 ? kMostHalf : std::numeric_limits<float>::max();
  return most / (2 * static_cast<float>(comm_->size()));  // half of it, because sums round
}

double FlatState::step(double lr) {
  optimizer_.set_rate(queue_, lr);
  const bool gathers = group_.size() > 1 && !shards(Sharding::parameters);
  for (std::size_t i = buckets_.size(); i-- > 0;) {
    auto& b = buckets_[i];
    // Each message of norms costs latency: all buckets except the last one to come share one message.
    know_norms_down_to(norms_.size() > 1 ? std::min<std::size_t>(i, 1) : i);
    b.measured = norms_.size() == 1 && b.unit_rows.empty();
    optimizer_.step(queue_, b.part, own_gradients(b), own_momenta(b), own_parameters(b), b.measured);
    if (gathers && !b.unit_rows.empty()) post_gather(b);  // not final yet: normalize_rows() follows
  }
  // In the order of the next forward pass.
  for (auto& b : buckets_)
    if (gathers && b.unit_rows.empty()) post_gather(b);
  normalize_rows(0);
  optimizer_.read_squares(queue_);
  finish_update();
  const double norm = optimizer_.gradient_norm();
  if (!std::isfinite(norm) && comm_->ledger() == nullptr) {
    throw Error(ExitCode::device,
                "the sum over ranks of the gradient of " + optimizer_.not_finite() +
                    " is not finite, though no rank has a large one",
                "the memory or network of a node gives wrong numbers: exclude this node and start again; the run "
                "continues from its newest checkpoint");
  }
  return norm;
}

void FlatState::skip() {
  // A row within this is of unit length in floats. To scale it again would only flip its last bits.
  constexpr float kUnitTolerance = 1e-5F;
  normalize_rows(kUnitTolerance);
  finish_update();
}

void FlatState::finish_update() {
  ++version_;
  const double busy_ms = stream_.take_busy_ms();
  phases_->add_hidden(std::max(0.0, busy_ms - (on_device() ? stream_.take_stalled_ms() : exposed_ms_)));
}

/// Normalises rows of tensors with Treatment::unit_rows (method.md 2: prototypes). A sharded row may lie on two ranks:
/// the bucket is gathered, and each owner keeps its part of the result.
void FlatState::normalize_rows(float tolerance) {
  for (auto& b : buckets_) {
    if (b.unit_rows.empty()) continue;
    if (shards(Sharding::parameters)) fetch(b);
    wait(Phase::gather, std::exchange(b.gather, 0));
    float* whole = whole_parameters_of(b);
    for (const auto* p : b.unit_rows) {
      const std::int64_t rows = p->shape.front();
      const device::Shape shape{rows, 1, 1, p->elems / rows};
      kernels::normalize_rows(queue_, {whole + (p->offset - b.begin), shape, DType::f32, queue_.space}, tolerance);
    }
    if (!shards(Sharding::parameters)) continue;
    kernels::copy(queue_, view(own_part(b, whole), b.own_elems()), view(own_parameters(b), b.own_elems()));
    b.gathered = false;
  }
}

}  // namespace seer::train
