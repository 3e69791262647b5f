// SPDX-License-Identifier: Apache-2.0
// Crops that were made on the host, brought to where the learner computes.
#pragma once

#include <cstddef>
#include <vector>

#include "seer/data/source.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/pinned.hpp"
#include "seer/device/queue.hpp"

namespace seer::train {

class ImageUpload {
 public:
  /// The batch with its images in the queue's space: itself where they are there already. Else by way of pinned memory,
  /// behind what the queue holds; the host's copies may be changed when this returns. Two sets take turns, so that one
  /// is filled while the other's update may still be under way; what the call before the last returned must be done
  /// with. Good until the call after the next.
  const data::Batch& bring(device::Queue& queue, const data::Batch& batch);
  /// In the queue's space.
  std::size_t bytes() const;

 private:
  struct Set {
    data::Batch batch;
    std::vector<device::PinnedBuffer> pinned;
    std::vector<device::Buffer> buffers;
  };
  Set sets_[2];
  std::size_t turn_ = 0;
};

}  // namespace seer::train
