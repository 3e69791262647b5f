// SPDX-License-Identifier: Apache-2.0
// Makes state.h5 with everything except the tensors' values.
#pragma once

#include <string>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {

std::string object_name(const std::string& group, const std::string& name);

/// HDF5 1.10 does not survive a failed write of its metadata: the file can then be neither closed nor dropped, and the
/// program crashes or hangs when it ends. So HDF5 lays out the file in memory (/dev/shm), where a full or failing file
/// system cannot affect it, and its bytes are then copied with plain writes. The tensors are holes in this file and
/// take no memory.
class Skeleton {
 public:
  /// Fills in the manifest's offsets and file_bytes.
  Skeleton(Manifest& manifest, const State& state);
  ~Skeleton();
  Skeleton(const Skeleton&) = delete;
  Skeleton& operator=(const Skeleton&) = delete;
  /// Creates `path` and reserves all its space, if the file system can do that. Error(file).
  void copy_to(const std::string& path) const;

 private:
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace seer::checkpoint
