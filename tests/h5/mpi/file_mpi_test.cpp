// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <numeric>

#include "data/temporary.hpp"
#include "seer/base/error.hpp"
#include "seer/h5/file.hpp"

namespace seer::h5 {
namespace {

TEST(H5Mpi, RanksWriteTheirRangesAndReadOthers) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder(&world);
  const auto path = folder / "a.h5";
  constexpr std::uint64_t kTotal = 3 * 5 * 7;
  const auto ranks = static_cast<std::uint64_t>(world.size());
  const auto rank = static_cast<std::uint64_t>(world.rank());
  {
    auto file = File::create(path, &world);
    file.create_group("/g");
    file.create_dataset("/g/x", Type::u32, {3, 5, 7});
    file.create_dataset("/g/last", Type::f64, {2});
    file.set("/g", "ranks", static_cast<std::int64_t>(world.size()));
    // Unequal ranges, written in a number of pieces that differs between ranks.
    const auto begin = kTotal * rank / ranks, end = kTotal * (rank + 1) / ranks;
    for (auto at = begin; at < end; at += rank + 3) {
      std::vector<std::uint32_t> mine(std::min(end - at, rank + 3));
      std::iota(mine.begin(), mine.end(), static_cast<std::uint32_t>(at));
      file.write("/g/x", Type::u32, at, mine.size(), mine.data());
    }
    // Only the last rank has something here.
    const double values[2] = {0.25, -3};
    file.write("/g/last", Type::f64, 0, rank + 1 == ranks ? 2 : 0, values);
    file.close();
  }
  auto file = File::open(path, &world);
  EXPECT_EQ(file.get_int("/g", "ranks"), world.size());
  EXPECT_EQ(file.list("/g"), (std::vector<std::string>{"last", "x"}));
  const auto all = file.read_all<std::uint32_t>("/g/x", Type::u32);
  for (std::uint64_t i = 0; i < kTotal; ++i) ASSERT_EQ(all[i], i);
  std::vector<double> last(2);
  file.read("/g/last", Type::f64, 0, world.is_root() ? 2 : 0, last.data());
  EXPECT_EQ(last[1], world.is_root() ? -3 : 0);
  const auto d = file.describe("/g/x");
  EXPECT_TRUE(d.plain);
  EXPECT_EQ(d.dims, (Dims{3, 5, 7}));
}

TEST(H5Mpi, MissingFileFailsOnEveryRank) {
  const auto world = comm::Communicator::world();
  const test::TemporaryFolder folder(&world);
  EXPECT_THROW(File::open(folder / "missing/a.h5", &world), Error);
  EXPECT_THROW(File::create(folder / "missing/a.h5", &world), Error);
}

}  // namespace
}  // namespace seer::h5
