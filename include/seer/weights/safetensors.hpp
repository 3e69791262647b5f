// SPDX-License-Identifier: Apache-2.0
// The safetensors format: the length of the header (8 bytes, little-endian), a JSON header with every tensor's type,
// shape and place, then the data. Files are treated as hostile: every length is checked before any allocation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "seer/weights/weights.hpp"

namespace seer::weights {

class SafetensorsFile {
 public:
  struct Entry {
    std::string type;  ///< as in the file: "F32", "BF16", "I64" ...
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  ///< bytes, from the start of the data
  };

  /// Reads and checks the header. Error(file).
  explicit SafetensorsFile(const std::string& path);
  const std::map<std::string, Entry>& entries() const { return entries_; }
  /// The header's __metadata__: texts by name. Values that are not text are left out.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  /// Reads F32, F16, BF16 and F64 as float; any other type is Error(file).
  HostTensor read(const std::string& name) const;

 private:
  std::string path_;
  std::uint64_t data_offset_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// A tensor to write: float32 values, or a 64-bit integer without dimensions if `values` is null.
struct SafetensorsItem {
  std::vector<std::int64_t> shape;
  const float* values = nullptr;
  std::int64_t integer = 0;
};

/// Writes a temporary file next to `path`, syncs it and renames it. Error(file).
void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsItem>& items,
                       const std::map<std::string, std::string>& metadata);

}  // namespace seer::weights
