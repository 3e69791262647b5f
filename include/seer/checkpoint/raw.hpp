// SPDX-License-Identifier: Apache-2.0
// Plain reads and writes of state.h5 at the manifest's offsets. Checking and loading the tensors needs no HDF5, so HDF5
// never sees a damaged file. If a rank's write fails, no HDF5 or MPI-IO call is left half done, and the cause of the
// failure is known; both libraries would hide it.
#pragma once

#include <cstdint>
#include <string>

#include "seer/checkpoint/manifest.hpp"

namespace seer::checkpoint {

/// Owns a file descriptor.
class RawFile {
 public:
  enum class Access : bool { read, write };
  /// Opens an existing file. Error(file).
  explicit RawFile(const std::string& path, Access access = Access::read);
  ~RawFile();
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  /// Reads exactly `bytes` bytes at `offset`. Error(file) if the file is shorter.
  void read(std::uint64_t offset, void* to, std::uint64_t bytes) const;
  /// Writes all `bytes` bytes at `offset`. Error(file).
  void write(std::uint64_t offset, const void* from, std::uint64_t bytes) const;
  /// Syncs what this node has written to the disk. Error(file).
  void sync() const;

 private:
  std::string path_;
  int fd_;
};

/// Checksum of all bytes outside the manifest's tensors. The ranges between tensors are cut into pieces of at most
/// 64 MiB; the result is the XXH3 of the pieces' XXH3s (8 bytes each, little-endian) in file order.
std::uint64_t outside_checksum(const std::string& path, const Manifest& manifest);

/// Verifies share `part` of `parts` of a checkpoint's tensors and returns the first problem ("" if none). Part 0 also
/// verifies the bytes outside the tensors.
std::string verify_share(const std::string& folder, const Manifest& manifest, int part, int parts);

}  // namespace seer::checkpoint
