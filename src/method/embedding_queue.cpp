// SPDX-License-Identifier: Apache-2.0
#include "embedding_queue.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::method {

EmbeddingQueue::EmbeddingQueue(const config::Swav& config, const comm::Communicator& comm, std::int64_t images,
                               std::int64_t dim, const device::Queue& work)
    : comm_(&comm),
      work_(work),
      crops_(config.crops_for_assign),
      images_(images),
      dim_(dim),
      start_update_(config.queue_start_update),
      configured_length_(config.queue_length) {
  if (config.queue_length == 0) return;
  const std::int64_t global_batch = images * comm.size();
  length_ = config.queue_length / global_batch * images;
  if (length_ == 0) {
    throw Error(
        ExitCode::input,
        fmt::format("swav.queue_length = {} is shorter than the global batch of {}", config.queue_length, global_batch),
        "set it to 0 (no queue) or to a multiple of data.global_batch")
        .as_agreed();
  }
  ring_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * length_ * dim_), work.space);
  offered_ = device::Buffer::floats(static_cast<std::size_t>(assigned() * images_ * dim_), work.space);
}

device::Tensor EmbeddingQueue::of_crop(std::size_t assigned) const {
  return {ring_.f32() + static_cast<std::int64_t>(assigned) * length_ * dim_,
          {length_, 1, 1, dim_},
          DType::f32,
          work_.space};
}

void EmbeddingQueue::offer(std::int64_t update, device::Tensor embeddings) {
  offers_ = length_ > 0 && update >= start_update_;
  for (std::int64_t a = 0; offers_ && a < assigned(); ++a) {
    const auto crop = crops_[static_cast<std::size_t>(a)];
    kernels::copy(work_, embeddings.slice(crop * images_, images_), update_rows(offered_.f32() + a * images_ * dim_));
  }
}

void EmbeddingQueue::accept() {
  if (!offers_) return;
  offers_ = false;
  for (std::int64_t a = 0; a < assigned(); ++a) {
    kernels::copy(work_, update_rows(offered_.f32() + a * images_ * dim_),
                  update_rows(ring_.f32() + (a * length_ + next_) * dim_));
  }
  next_ = (next_ + images_) % length_;  // length_ is a multiple of images_
  filled_ = std::min(filled_ + images_, length_);
}

std::vector<std::int64_t> EmbeddingQueue::shape() const {
  if (length_ == 0) return {};
  return {assigned(), length_ * comm_->size(), dim_};
}

std::vector<float> EmbeddingQueue::gather() const {
  if (length_ == 0) return {};
  // Newest update first, so that a reader need not know the ring's position.
  const std::int64_t part = length_ * dim_, slice = images_ * dim_, updates = length_ / images_, ranks = comm_->size();
  std::vector<float> mine(static_cast<std::size_t>(assigned() * part));
  for (std::int64_t a = 0; a < assigned(); ++a) {
    for (std::int64_t age = 0; age < updates; ++age) {
      device::copy(work_, ring_.f32() + a * part + place_of(age) * dim_, work_.space,
                   mine.data() + a * part + age * slice, device::Space::host,
                   static_cast<std::size_t>(slice) * sizeof(float));
    }
  }
  work_.wait();
  std::vector<float> by_rank(mine.size() * static_cast<std::size_t>(ranks)), out(by_rank.size());
  comm_->all_gather(mine, by_rank);
  // Groups all ranks' rows by update, in batch order, so that any number of ranks can take their slices.
  for (std::int64_t r = 0; r < ranks; ++r) {
    for (std::int64_t a = 0; a < assigned(); ++a) {
      for (std::int64_t age = 0; age < updates; ++age) {
        std::copy_n(by_rank.data() + (r * assigned() + a) * part + age * slice, slice,
                    out.data() + a * ranks * part + (age * ranks + r) * slice);
      }
    }
  }
  return out;
}

void EmbeddingQueue::restore(std::span<const float> stored, std::int64_t filled, std::int64_t place,
                             std::int64_t update) {
  if (length_ == 0 || stored.empty()) return;
  const std::int64_t part = length_ * dim_, slice = images_ * dim_, updates = length_ / images_, ranks = comm_->size();
  if (std::ssize(stored) != assigned() * part * ranks) {
    throw Error(ExitCode::file,
                fmt::format("the checkpoint's queue holds {} numbers, wanted {} (swav.queue_length {})", stored.size(),
                            assigned() * part * ranks, configured_length_),
                "resume with the queue length of the run that wrote it")
        .as_agreed();
  }
  // Restores the ring's position too: sums over its rows then have the same order, and a resumed run gives the same
  // bits.
  if (place < 0) place = std::max<std::int64_t>(0, update - start_update_);
  next_ = place % updates * images_;
  for (std::int64_t a = 0; a < assigned(); ++a) {
    for (std::int64_t age = 0; age < updates; ++age) {
      const float* mine = stored.data() + a * ranks * part + (age * ranks + comm_->rank()) * slice;
      device::copy(work_, mine, device::Space::host, ring_.f32() + a * part + place_of(age) * dim_, work_.space,
                   static_cast<std::size_t>(slice) * sizeof(float));
    }
  }
  work_.wait();
  // Rounded to whole updates, because the global batch may have changed.
  filled_ = std::min(filled / ranks / images_ * images_, length_);
}

}  // namespace seer::method
