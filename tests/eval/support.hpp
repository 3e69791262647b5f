// SPDX-License-Identifier: Apache-2.0
// Small inputs for the evaluation tests: tables of features, and shards of generated images.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "golden.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/random.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::test {

/// This rank's slice of a table that every rank knows whole.
inline eval::FeatureTable slice(const std::vector<float>& values, const std::vector<std::int32_t>& labels,
                                const comm::Communicator& comm, std::vector<std::string> classes = {}) {
  const std::uint64_t n = labels.size(), d = values.size() / n;
  const auto begin = eval::slice_begin(n, comm.rank(), comm.size()),
             end = eval::slice_begin(n, comm.rank() + 1, comm.size());
  eval::FeatureTable table;
  table.info.images = n;
  table.info.dimension = static_cast<std::int64_t>(d);
  table.info.data = "a table";
  table.info.classes = std::move(classes);
  table.first = begin;
  for (auto i = begin; i < end; ++i) {
    table.values.insert(table.values.end(), values.begin() + static_cast<std::ptrdiff_t>(i * d),
                        values.begin() + static_cast<std::ptrdiff_t>((i + 1) * d));
    table.labels.push_back(labels[i]);
    table.index.push_back(i);
    table.bad.push_back(0);
  }
  return table;
}

/// PNG of RGB pixels with stored (uncompressed) deflate blocks: any decoder reads it, and no library is needed here.
inline std::vector<std::uint8_t> png(std::uint32_t width, std::uint32_t height, const std::vector<std::uint8_t>& rgb) {
  std::vector<std::uint8_t> out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  const auto be32 = [](std::vector<std::uint8_t>& to, std::uint32_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) to.push_back(static_cast<std::uint8_t>(v >> shift));
  };
  const auto chunk = [&](const char* type, const std::vector<std::uint8_t>& body) {
    std::vector<std::uint8_t> typed(type, type + 4);
    typed.insert(typed.end(), body.begin(), body.end());
    std::uint32_t crc = 0xFFFFFFFF;
    for (const auto byte : typed) {
      crc ^= byte;
      for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
    }
    be32(out, static_cast<std::uint32_t>(body.size()));
    out.insert(out.end(), typed.begin(), typed.end());
    be32(out, ~crc);
  };
  std::vector<std::uint8_t> header;
  be32(header, width);
  be32(header, height);
  header.insert(header.end(), {8, 2, 0, 0, 0});
  chunk("IHDR", header);
  std::vector<std::uint8_t> raw;
  for (std::size_t y = 0; y < height; ++y) {
    raw.push_back(0);  // no filter
    raw.insert(raw.end(), rgb.begin() + static_cast<std::ptrdiff_t>(y * width * 3),
               rgb.begin() + static_cast<std::ptrdiff_t>((y + 1) * width * 3));
  }
  std::vector<std::uint8_t> zlib = {0x78, 0x01};
  std::uint32_t a = 1, b = 0;
  for (const auto byte : raw) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  for (std::size_t at = 0; at < raw.size();) {
    const std::size_t n = std::min<std::size_t>(raw.size() - at, 65535);
    zlib.push_back(at + n == raw.size() ? 1 : 0);
    for (const auto v : {n & 0xFF, n >> 8, ~n & 0xFF, (~n >> 8) & 0xFF}) zlib.push_back(static_cast<std::uint8_t>(v));
    zlib.insert(zlib.end(), raw.begin() + static_cast<std::ptrdiff_t>(at),
                raw.begin() + static_cast<std::ptrdiff_t>(at + n));
    at += n;
  }
  be32(zlib, b << 16 | a);
  chunk("IDAT", zlib);
  chunk("IEND", {});
  return out;
}

/// Image `seed`: soft colour gradients with noise, another size every time (odd ones among them).
inline std::vector<std::uint8_t> some_png(std::uint64_t seed, std::uint32_t& width, std::uint32_t& height) {
  Random random(seed, Purpose::test);
  width = 40 + static_cast<std::uint32_t>(random.below(30));
  height = 40 + static_cast<std::uint32_t>(random.below(30));
  std::vector<std::uint8_t> rgb(std::size_t{3} * width * height);
  const double fx = random.uniform(0, 0.3), fy = random.uniform(0, 0.3);
  for (std::size_t i = 0; i < rgb.size(); ++i) {
    const double x = static_cast<double>(i / 3 % width), y = static_cast<double>(i / 3 / width);
    rgb[i] = static_cast<std::uint8_t>(128 + 90 * std::sin(fx * x + fy * y + static_cast<double>(i % 3)) +
                                       random.uniform(-30, 30));
  }
  return png(width, height, rgb);
}

/// A folder of shards of `images` images, made by rank 0, removed at the end. Labels are index % classes; image
/// `broken` is cut off.
class ShardFolder {
 public:
  ShardFolder(const comm::Communicator& comm, std::uint64_t images, std::int32_t classes, std::int64_t broken = -1)
      : comm_(comm) {
    std::string path = (std::filesystem::temp_directory_path() / ("seer-eval-" + std::to_string(::getpid()))).string();
    comm_.broadcast(path);
    path_ = path;
    if (!comm_.is_root()) {
      comm_.barrier();
      return;
    }
    std::filesystem::create_directories(path_);
    std::vector<std::string> names;
    for (std::int32_t c = 0; c < classes; ++c) names.push_back("class " + std::to_string(c));
    const std::uint64_t first_shard = images / 2 + 1;  // two shards of unequal size
    for (int shard = 0; shard < 2; ++shard) {
      std::vector<data::ShardEntry> entries;
      std::vector<std::vector<std::uint8_t>> files;
      for (std::uint64_t i = shard == 0 ? 0 : first_shard; i < (shard == 0 ? first_shard : images); ++i) {
        data::ShardEntry entry;
        files.push_back(some_png(i, entry.width, entry.height));
        if (static_cast<std::int64_t>(i) == broken) files.back().resize(files.back().size() / 2);
        entry.bytes = files.back().size();
        entry.checksum = checksum(files.back().data(), files.back().size());
        entry.label = static_cast<std::int32_t>(i % static_cast<std::uint64_t>(classes));
        entries.push_back(entry);
      }
      data::ShardWriter writer(path_ + "/images-0000" + std::to_string(shard) + ".h5", entries, names);
      for (const auto& file : files) writer.append(file);
      writer.finish();
      writer.publish();
    }
    comm_.barrier();
  }
  ~ShardFolder() {
    comm_.barrier();
    if (comm_.is_root()) std::filesystem::remove_all(path_);
  }
  ShardFolder(const ShardFolder&) = delete;
  ShardFolder& operator=(const ShardFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  const comm::Communicator& comm_;
  std::string path_;
};

}  // namespace seer::test
