// SPDX-License-Identifier: Apache-2.0
// For tests of pack: small images, tar archives made by hand, and the comparison of all ranks with one alone.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/data/pack.hpp"
#include "temporary.hpp"

namespace seer::test {

namespace fs = std::filesystem;

inline std::string bytes_of(const std::string& path) {
  const auto bytes = read_bytes(path);
  return {bytes.begin(), bytes.end()};
}

inline std::string test_image(const std::string& name) {
  return bytes_of(std::string(SEER_TEST_DATA) + "/images/" + name);
}

/// Also makes the folders that hold it.
inline void write_file(const std::string& path, const std::string& bytes) {
  fs::create_directories(fs::path(path).parent_path());
  write_bytes(path, bytes.data(), bytes.size());
}

/// An entry of a tar archive. Sparse entries use GNU's old sparse format, with one stretch of data at `data_at`.
struct TarEntry {
  std::string name, bytes;
  std::size_t sparse_bytes = 0, data_at = 0;  ///< size with holes; 0: a dense file
};

/// The smallest tar (POSIX ustar).
inline std::string tar_of(const std::vector<TarEntry>& entries) {
  std::string tar;
  for (const auto& e : entries) {
    std::string header(512, '\0');
    const auto octal = [&](std::size_t at, std::size_t digits, std::size_t value) {
      std::snprintf(header.data() + at, digits + 1, "%0*o", static_cast<int>(digits), static_cast<unsigned>(value));
    };
    e.name.copy(header.data(), 100);
    octal(100, 7, 0644);
    octal(124, 11, e.bytes.size());
    header.replace(148, 8, 8, ' ');
    header[156] = e.sparse_bytes > 0 ? 'S' : '0';
    if (e.sparse_bytes > 0) {
      header.replace(257, 8, "ustar  ", 8);
      octal(386, 11, e.data_at);
      octal(398, 11, e.bytes.size());
      octal(483, 11, e.sparse_bytes);
    } else {
      header.replace(257, 8, "ustar\00000", 8);
    }
    unsigned sum = 0;
    for (char c : header) sum += static_cast<unsigned char>(c);
    octal(148, 6, sum);
    tar += header + e.bytes;
    tar.resize((tar.size() + 511) / 512 * 512, '\0');
  }
  tar.append(1024, '\0');
  return tar;
}

/// A tar archive of a folder's files, sorted.
inline std::string tar_of_folder(const std::string& folder) {
  std::vector<TarEntry> entries;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    if (e.is_regular_file()) entries.push_back({fs::relative(e.path(), folder).string(), bytes_of(e.path().string())});
  }
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return tar_of(entries);
}

inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(folder)) names.push_back(e.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline void expect_equal_folders(const std::string& a, const std::string& b) {
  EXPECT_EQ(names_in(a), names_in(b));
  for (const auto& name : names_in(a)) EXPECT_EQ(read_bytes(a + "/" + name), read_bytes(b + "/" + name)) << name;
}

class PackTest : public testing::Test {
 protected:
  /// Rank 0 does it, the others wait.
  template <class F>
  void on_root(F&& make) {
    if (world_.is_root()) make();
    world_.barrier();
  }
  data::PackOptions options(const std::string& source, const std::string& to) {
    data::PackOptions o;
    o.sources = {folder_ / source};
    o.folder = folder_ / to;
    o.shard_bytes = 20000;
    return o;
  }
  /// Packs with all ranks and with rank 0 alone, and compares.
  data::PackResult both(data::PackOptions o) {
    const auto folder = o.folder;
    const auto together = pack(o, world_);
    if (world_.is_root()) {
      o.folder = folder + "-alone";
      const auto alone = pack(o, alone_);
      EXPECT_EQ(alone.accepted, together.accepted);
      EXPECT_EQ(alone.rejected, together.rejected);
      EXPECT_EQ(alone.left_out, together.left_out);
      expect_equal_folders(folder, o.folder);
    }
    world_.barrier();
    return together;
  }
  /// The message of the error that all ranks must agree on.
  std::string message(const data::PackOptions& o) {
    try {
      pack(o, world_);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::file);
      return e.message();
    }
    return "no error";
  }

  comm::Communicator world_ = comm::Communicator::world();
  comm::Communicator alone_ = world_.split(world_.rank());
  TemporaryFolder folder_{&world_};
};

}  // namespace seer::test
