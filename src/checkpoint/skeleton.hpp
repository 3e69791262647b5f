// SPDX-License-Identifier: Apache-2.0
// state.h5 with everything in it but the tensors' values.
#pragma once

#include <string>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {

std::string object_name(const std::string& group, const std::string& name);

/// HDF5 1.10 cannot survive a failed write of its own metadata: the file can then be neither closed nor forgotten, and
/// the program crashes or hangs when it ends. So HDF5 lays the file out in memory (/dev/shm), out of reach of a full or
/// failing file system, and what it wrote is copied with plain writes. The tensors are holes there and cost no memory.
class Skeleton {
 public:
  /// Fills in the manifest's offsets and file_bytes.
  Skeleton(Manifest& manifest, const State& state);
  ~Skeleton();
  Skeleton(const Skeleton&) = delete;
  Skeleton& operator=(const Skeleton&) = delete;
  /// Creates `path` with all space reserved where the file system can do that. Error(file).
  void copy_to(const std::string& path) const;

 private:
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
};

}  // namespace seer::checkpoint
