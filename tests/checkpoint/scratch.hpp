// SPDX-License-Identifier: Apache-2.0
// A folder that all ranks of a test share, and contents for checkpoints.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "golden.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::test {

namespace fs = std::filesystem;

class Scratch {
 public:
  explicit Scratch(const comm::Communicator& comm) : root_(comm.is_root()) {
    if (root_) {
      std::string pattern = (fs::temp_directory_path() / "seer-checkpoint-XXXXXX").string();
      path_ = mkdtemp(pattern.data());
    }
    comm.broadcast(path_);
  }
  ~Scratch() {
    std::error_code ec;
    if (root_) fs::remove_all(path_, ec);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  bool root_;
  std::string path_;
};

/// Tensors of odd sizes with known values. A rank holds a range of their concatenation, so ranks share tensors.
class Tensors {
 public:
  explicit Tensors(std::uint64_t seed) {
    add("model", "stem.0.weight", {32, 3, 3, 3}, seed);
    add("model", "trunk_output.block1.block1-0.f.a.0.weight", {17, 32, 1, 1}, seed + 1);
    add("model", "scalar", {1}, seed + 2);
    add("momentum", "stem.0.weight", {32, 3, 3, 3}, seed + 3);
    add("momentum", "big", {5, 7, 11, 13}, seed + 4);
    add("buffers", "stem.1.running_var", {33}, seed + 5);
  }
  std::int64_t elements() const { return total_; }

  /// Cuts: [begin, end) of all elements; values filled in, or zero to be read into.
  std::vector<checkpoint::Slab> slabs(std::int64_t begin, std::int64_t end, bool filled,
                                      std::vector<std::vector<float>>& store) const {
    std::vector<checkpoint::Slab> out;
    store.clear();
    std::int64_t at = 0;
    for (const auto& t : tensors_) {
      const auto n = static_cast<std::int64_t>(t.values.size());
      const auto b = std::clamp(begin - at, std::int64_t{0}, n), e = std::clamp(end - at, std::int64_t{0}, n);
      store.emplace_back(filled ? std::vector<float>(t.values.begin() + b, t.values.begin() + e)
                                : std::vector<float>(static_cast<std::size_t>(e - b)));
      out.push_back({t.group, t.name, t.shape, store.back().data(), b, e});
      at += n;
    }
    return out;
  }

 private:
  struct Tensor {
    std::string group, name;
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  void add(const std::string& group, const std::string& name, std::vector<std::int64_t> shape, std::uint64_t seed) {
    std::int64_t n = 1;
    for (const auto extent : shape) n *= extent;
    tensors_.push_back({group, name, std::move(shape), hash_fill(static_cast<std::size_t>(n), seed, 1)});
    total_ += n;
  }
  std::vector<Tensor> tensors_;
  std::int64_t total_ = 0;
};

/// Cut `i` of `parts`: uneven, some parts empty.
inline std::int64_t cut(std::int64_t total, int i, int parts, int flavour) {
  if (i <= 0) return 0;
  if (i >= parts) return total;
  if (flavour == 1) return total;  // everything on part 0
  return std::min(total, (total * i) / parts + 1 + flavour);
}

inline checkpoint::State some_state(std::int64_t update, int ranks) {
  checkpoint::State s;
  s.update = update;
  s.images_seen = update * 96;
  s.loss_scale = 65536.5;
  s.loss_scale_clean = update % 3 == 0 ? -1 : update;  // a run with loss scaling, or without
  s.seed = 42;
  s.global_batch = 96;
  s.ranks = ranks;
  s.shards = {
      {"train-00000.h5", 4711, 12}, {"a longer name-00001.h5", std::int64_t{1} << 40, 1}, {"caf\\xE9.h5", 0, 0}};
  s.plateau = {std::numeric_limits<double>::infinity(), 0.1, -3};
  s.method.numbers["queue_filled"] = 3;
  s.method.tensors["queue"] = {{2, 5, 4}, hash_fill(2 * 5 * 4, 99, 1)};
  if (update % 2 == 1) {
    s.method.numbers["queue_place"] = 2;
    s.method.tensors["centre"] = {{7}, hash_fill(7, 98, 1)};
    s.guard = {1, 0, 0.5, -1e300};
    s.watch = {1, 85.25, 1200, 2};
    s.kept_rate = {7, 0.1 + 0.2};
    for (int c = 0; c < 3000; ++c) s.classes.push_back("caf\xC3\xA9, 30 bytes and number " + std::to_string(c));
  }
  s.config_toml = "[model]\npreset = \"tiny\"\n";
  return s;
}

inline void expect_equal(const checkpoint::State& a, const checkpoint::State& b) {
  EXPECT_EQ(a.update, b.update);
  EXPECT_EQ(a.images_seen, b.images_seen);
  EXPECT_EQ(a.loss_scale, b.loss_scale);
  EXPECT_EQ(a.loss_scale_clean, b.loss_scale_clean);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.global_batch, b.global_batch);
  EXPECT_EQ(a.ranks, b.ranks);
  EXPECT_EQ(a.shards, b.shards);
  EXPECT_EQ(a.plateau, b.plateau);
  EXPECT_EQ(a.method.numbers, b.method.numbers);
  ASSERT_EQ(a.method.tensors.size(), b.method.tensors.size());
  for (const auto& [name, tensor] : a.method.tensors) {
    ASSERT_TRUE(b.method.tensors.contains(name)) << name;
    EXPECT_EQ(tensor.shape, b.method.tensors.at(name).shape) << name;
    EXPECT_EQ(tensor.values, b.method.tensors.at(name).values) << name;
  }
  EXPECT_EQ(a.guard, b.guard);
  EXPECT_EQ(a.watch, b.watch);
  EXPECT_EQ(a.kept_rate, b.kept_rate);
  EXPECT_EQ(a.classes, b.classes);
  EXPECT_EQ(a.config_toml, b.config_toml);
}

/// The message of the Error(file) that `call` throws.
template <class Call>
std::string file_error(Call call) {
  try {
    call();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file) << e.what();
    return e.message();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

inline void flip_byte(const std::string& path, std::uint64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ 0x10));
}

}  // namespace seer::test
