// SPDX-License-Identifier: Apache-2.0
// A features file keeps the classes of images that have several.
#include <filesystem>

#include "../support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

std::vector<std::vector<std::int32_t>> classes_of(const FeatureTable& table) {
  std::vector<std::vector<std::int32_t>> out;
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const auto of = table.classes_of(i);
    out.emplace_back(of.begin(), of.end());
  }
  return out;
}

TEST(FeatureTargetsMpi, AreWrittenInPiecesAndReadByAnyNumberOfRanks) {
  const auto world = comm::Communicator::world();
  const auto alone = world.split(world.rank());
  const auto folder = std::filesystem::temp_directory_path();
  std::string path = (folder / ("seer-targets-" + std::to_string(::getpid()))).string();
  world.broadcast(path);
  for (const std::uint64_t n : {std::uint64_t{7}, std::uint64_t{3}}) {
    std::vector<std::vector<std::int32_t>> expected(n);
    std::vector<std::int32_t> labels(n, -1);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t k = 0; k < i % 3; ++k) expected[i].push_back(static_cast<std::int32_t>(10 * i + k));
      if (i % 3 == 1) labels[i] = expected[i][0];
    }
    auto mine = test::slice(test::hash_fill(n * 2, 1, 1), labels, world);
    mine.checksum.assign(mine.rows(), 1);
    for (std::size_t i = 0; i < mine.rows(); ++i) mine.targets.add(expected[mine.first + i]);
    for (std::size_t i = 0; i < mine.rows(); ++i) mine.ignored.add(expected[n - 1 - mine.first - i]);
    FeatureFileWriter writer(world, path, mine.info);
    for (std::size_t i = 0; i < mine.rows(); ++i) {  // one row at a time
      FeatureTable row = {.info = {},
                          .first = mine.first + i,
                          .values = {mine.values[2 * i], mine.values[2 * i + 1]},
                          .labels = {mine.labels[i]},
                          .targets = {},
                          .ignored = {},
                          .index = {mine.index[i]},
                          .bad = {0},
                          .checksum = {1}};
      row.targets.add(mine.targets.of(i));
      row.ignored.add(mine.ignored.of(i));
      writer.write(row);
    }
    writer.close();
    EXPECT_EQ(classes_of(read_features(alone, path)), expected);
    const auto part = read_features(world, path);
    EXPECT_EQ(classes_of(part), classes_of(mine));
    EXPECT_EQ(part.labels, mine.labels);
    EXPECT_EQ(part.ignored.begins, mine.ignored.begins);
    EXPECT_EQ(part.ignored.values, mine.ignored.values);
  }
  world.barrier();
  if (world.is_root()) {
    auto file = h5::File::open(path, nullptr, true);
    const std::uint64_t wrong = 1000;
    file.write("/target_begin", h5::Type::u64, 1, 1, &wrong);
    file.close();
  }
  world.barrier();
  EXPECT_THROW(read_features(world, path), Error);
  world.barrier();
  if (world.is_root()) std::filesystem::remove(path);
}

}  // namespace
}  // namespace seer::eval
