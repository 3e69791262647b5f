// SPDX-License-Identifier: Apache-2.0
#include "seer/train/image_upload.hpp"

#include <algorithm>
#include <cstring>

#include "seer/device/copy.hpp"

namespace seer::train {

const data::Batch& ImageUpload::bring(device::Queue& queue, const data::Batch& batch) {
  const auto there = [&](const data::CropGroup& group) { return group.images.space == queue.space; };
  if (std::all_of(batch.groups.begin(), batch.groups.end(), there)) return batch;
  auto& set = sets_[turn_++ % 2];
  set.batch = batch;
  set.pinned.resize(batch.groups.size());
  set.buffers.resize(batch.groups.size());
  for (std::size_t g = 0; g < batch.groups.size(); ++g) {
    if (there(batch.groups[g])) continue;
    auto& images = set.batch.groups[g].images;
    const auto bytes = static_cast<std::size_t>(images.bytes());
    if (set.buffers[g].bytes() < bytes) {
      set.pinned[g] = device::PinnedBuffer(bytes);
      set.buffers[g] = device::Buffer(bytes, queue.space);
    }
    std::memcpy(set.pinned[g].data(), images.data, bytes);
    device::copy(queue, set.pinned[g].data(), device::Space::host, set.buffers[g].data(), queue.space, bytes);
    images.data = set.buffers[g].data();
    images.space = queue.space;
  }
  return set.batch;
}

std::size_t ImageUpload::bytes() const {
  std::size_t sum = 0;
  for (const auto& set : sets_) {
    for (const auto& buffer : set.buffers) sum += buffer.bytes();
  }
  return sum;
}

}  // namespace seer::train
