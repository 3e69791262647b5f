// SPDX-License-Identifier: Apache-2.0
// Two shards of 30 and 20 small PNG images for loaders.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <set>
#include <vector>

#include "seer/base/checksum.hpp"
#include "seer/data/shard.hpp"
#include "temporary.hpp"
#include "tiny_png.hpp"

namespace seer::test {

constexpr std::uint64_t kTinyImages = 50;

/// Images of different sizes and contents; those listed as bad are cut short.
inline void write_tiny_shards(const TemporaryFolder& folder, const std::set<std::uint64_t>& bad) {
  std::uint64_t index = 0;
  for (const std::uint64_t count : {30, 20}) {
    std::vector<std::vector<std::uint8_t>> files;
    std::vector<data::ShardEntry> entries;
    for (std::uint64_t i = 0; i < count; ++i, ++index) {
      const auto width = static_cast<std::uint32_t>(20 + index % 7),
                 height = static_cast<std::uint32_t>(15 + index % 5);
      auto file = tiny_png(width, height, index);
      if (bad.count(index) != 0) file.resize(file.size() / 2);
      entries.push_back(
          {file.size(), checksum(file.data(), file.size()), width, height, static_cast<std::int32_t>(index % 3)});
      files.push_back(std::move(file));
    }
    data::ShardWriter writer(folder / fmt::format("shard-{}.h5", index), entries, {"a", "b", "c"});
    for (const auto& file : files) writer.append(file);
    writer.finish();
    writer.publish();
  }
}

}  // namespace seer::test
