// SPDX-License-Identifier: Apache-2.0
// Plain reads and writes of state.h5 by the manifest's offsets. Checking and loading need no HDF5, so a damaged file
// never reaches it; neither HDF5 nor MPI-IO is left in the middle by a rank whose write fails, and both would hide why.
#pragma once

#include <cstdint>
#include <string>

#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {

/// Owns a file descriptor.
class RawFile {
 public:
  enum class Access : bool { read, write };
  /// Of a file that is there. Error(file).
  explicit RawFile(const std::string& path, Access access = Access::read);
  ~RawFile();
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  /// Exactly `bytes` from `offset`. Error(file) where the file ends before.
  void read(std::uint64_t offset, void* to, std::uint64_t bytes) const;
  /// All of it. Error(file).
  void write(std::uint64_t offset, const void* from, std::uint64_t bytes) const;
  /// What this node has written, down to the disk. Error(file).
  void sync() const;

 private:
  std::string path_;
  int fd_;
};

/// Checksum of all bytes outside the manifest's tensors: XXH3 of the XXH3s (8 bytes each, little-endian) of the
/// stretches between them, in order of the file, none longer than 64 MiB.
std::uint64_t outside_checksum(const std::string& path, const Manifest& manifest);

/// First problem of this share of a checkpoint's slabs ("" if none): rank `part` of `parts` reads its part of the
/// bytes; part 0 also reads what lies outside the tensors.
std::string verify_share(const std::string& folder, const Manifest& manifest, int part, int parts);

}  // namespace seer::checkpoint
