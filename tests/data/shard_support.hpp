// SPDX-License-Identifier: Apache-2.0
// Small shards whose every byte is known.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/data/shard.hpp"
#include "temporary.hpp"

namespace seer::data {

using h5::Type;

inline const std::vector<std::string> kClasses = {"cat", "dog"};

inline std::vector<std::uint8_t> image_bytes(std::uint64_t i) {
  std::vector<std::uint8_t> bytes(i * 7 % 5 + 1);
  for (std::size_t k = 0; k < bytes.size(); ++k) bytes[k] = static_cast<std::uint8_t>(i + 31 * k);
  return bytes;
}

/// Entries of images [first, first + count).
inline std::vector<ShardEntry> entries_of(std::uint64_t first, std::uint64_t count) {
  std::vector<ShardEntry> out;
  for (std::uint64_t i = first; i < first + count; ++i) {
    const auto b = image_bytes(i);
    out.push_back({b.size(), checksum(b.data(), b.size()), static_cast<std::uint32_t>(10 + i),
                   static_cast<std::uint32_t>(20 + i), static_cast<std::int32_t>(i % 3) - 1});
  }
  return out;
}

inline void write_shard(const std::string& path, std::uint64_t first, const std::vector<ShardEntry>& entries,
                        const std::vector<std::string>& classes = kClasses) {
  ShardWriter writer(path, entries, classes);
  for (std::uint64_t i = first; i < first + entries.size(); ++i)
    writer.append(image_bytes(i), "photo" + std::to_string(i));
  writer.finish();
  writer.publish();
}
inline void write_shard(const std::string& path, std::uint64_t first, std::uint64_t count,
                        const std::vector<std::string>& classes = kClasses) {
  write_shard(path, first, entries_of(first, count), classes);
}

/// The text of its Error(file).
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    return e.what();
  }
  return "no error";
}

}  // namespace seer::data
