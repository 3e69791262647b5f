// SPDX-License-Identifier: Apache-2.0
// The safetensors format: 8 bytes length of the header (little-endian), a JSON header that gives every tensor's type,
// shape and place, the data. Files are treated as hostile: every length is checked before anything is allocated.
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
  /// The header's __metadata__: texts by name. What is no text there is left out.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  /// F32, F16, BF16 and F64 as float; another type is Error(file).
  HostTensor read(const std::string& name) const;

 private:
  std::string path_;
  std::uint64_t data_offset_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// What to write: float32 values, or a 64-bit integer without dimensions where `values` is null.
struct SafetensorsItem {
  std::vector<std::int64_t> shape;
  const float* values = nullptr;
  std::int64_t integer = 0;
};

/// Through a temporary file beside `path`, synced and renamed. Error(file).
void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsItem>& items,
                       const std::map<std::string, std::string>& metadata);

}  // namespace seer::weights
