// SPDX-License-Identifier: Apache-2.0
// Copies crops that were made on the host to where the learner computes.
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
  /// Returns the batch with its images in the queue's space: the same batch if they are there already. Else copies them
  /// through pinned memory, after the work that is in the queue; the host's images may change once this returns. Two
  /// sets take turns, so one can be filled while the update with the other still runs. The update with the batch before
  /// the last must have finished. The result is valid until the call after the next.
  const data::Batch& bring(device::Queue& queue, const data::Batch& batch);
  /// Bytes in the queue's space.
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
