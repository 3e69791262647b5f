// SPDX-License-Identifier: Apache-2.0
// The exact shard format, and sets of shards.
#include "seer/data/shard.hpp"

#include <filesystem>

#include "shard_support.hpp"

namespace seer::data {
namespace {

TEST(Shard, FormatToTheLetter) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  write_shard(path, 0, 5);
  auto f = h5::File::open(path);
  EXPECT_EQ(f.list("/"), std::vector<std::string>{"images"});
  EXPECT_EQ(f.list("/images"),
            (std::vector<std::string>{"bytes", "checksum", "height", "label", "name", "offset", "width"}));
  EXPECT_EQ(f.attributes("/"), (std::vector<std::string>{"classes", "format", "version"}));
  EXPECT_EQ(f.get_string("/", "format"), "seer-shard");
  EXPECT_EQ(f.get_int("/", "version"), 1);
  EXPECT_EQ(f.get_strings("/", "classes"), kClasses);
  for (const auto& [name, type] : {std::pair{"bytes", Type::u8},
                                   {"offset", Type::u64},
                                   {"width", Type::u32},
                                   {"height", Type::u32},
                                   {"checksum", Type::u64},
                                   {"label", Type::i32}}) {
    const auto d = f.describe(std::string("/images/") + name);
    EXPECT_TRUE(d.plain) << name;
    EXPECT_EQ(d.type, type) << name;
    EXPECT_EQ(d.dims.size(), 1U) << name;
  }
  const auto offset = f.read_all<std::uint64_t>("/images/offset", Type::u64);
  const auto bytes = f.read_all<std::uint8_t>("/images/bytes", Type::u8);
  const auto sums = f.read_all<std::uint64_t>("/images/checksum", Type::u64);
  ASSERT_EQ(offset.size(), 6U);
  EXPECT_EQ(offset[0], 0U);
  for (std::uint64_t i = 0; i < 5; ++i) {
    const auto wanted = image_bytes(i);
    ASSERT_EQ(offset[i + 1] - offset[i], wanted.size());
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset[i])));
    EXPECT_EQ(sums[i], checksum(wanted.data(), wanted.size()));
  }
  EXPECT_EQ(f.read_all<std::int32_t>("/images/label", Type::i32), (std::vector<std::int32_t>{-1, 0, 1, -1, 0}));
  EXPECT_EQ(f.read_all<std::uint32_t>("/images/height", Type::u32), (std::vector<std::uint32_t>{20, 21, 22, 23, 24}));
  EXPECT_EQ(f.describe_strings("/images/name"), (std::pair<std::uint64_t, std::uint64_t>{5, 6}));
}

TEST(Shard, UnfinishedLeavesNothing) {
  test::TemporaryFolder folder;
  const auto path = folder / "a.h5";
  {
    ShardWriter writer(path, {{3, 0, 1, 1, -1}}, {});
    EXPECT_TRUE(std::filesystem::exists(path + kTemporarySuffix));
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_THROW(writer.finish(), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Shard, DataSetReadsAcrossShards) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  write_shard(folder / "p-00001.h5", 4, 1);
  write_shard(folder / "p-00000.h5", 0, 4);
  write_shard(folder / "p-00002.h5", 5, 6);
  test::write_bytes(folder / "p-00003.h5.tmp", "half", 4);
  for (const auto& pattern : {folder.path(), folder / "p-*.h5",
                              folder / "p-00002.h5" + ", " + folder / "p-00000.h5" + "," + folder / "p-00001.h5"}) {
    const auto set = DataSet::open(pattern, world);
    ASSERT_EQ(set.images(), 11U);
    EXPECT_EQ(set.shards().size(), 3U);
    EXPECT_EQ(set.classes(), kClasses);
    EXPECT_TRUE(set.has_labels());
    const auto places = set.places(2, 8);
    ASSERT_EQ(places.size(), 8U);
    for (std::uint64_t i = 0; i < 8; ++i) {
      std::vector<std::uint8_t> bytes(places[i].bytes);
      set.read(places[i].shard, places[i].offset, bytes.size(), bytes.data());
      EXPECT_EQ(bytes, image_bytes(i + 2));
    }
    std::vector<std::uint8_t> one;
    set.read_image(10, one);
    EXPECT_EQ(one, image_bytes(10));
    EXPECT_EQ(set.labels(3, 3), (std::vector<std::int32_t>{-1, 0, 1}));
    EXPECT_EQ(set.places(10, 1)[0].checksum, checksum(one.data(), one.size()));
    EXPECT_EQ(set.describe(5), "p-00002.h5, image 0");
    EXPECT_TRUE(set.places(11, 0).empty());
    EXPECT_THROW(set.places(11, 1), Error);
  }
}

TEST(Shard, MissingAndForeignFilesAreNamed) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  auto open = [&](const std::string& pattern) { return error_of([&] { DataSet::open(pattern, world); }); };
  EXPECT_NE(open(folder / "none.h5").find("no such file"), std::string::npos);
  EXPECT_NE(open(folder / "none-*.h5").find("no file matches"), std::string::npos);
  EXPECT_NE(open(folder.path()).find("holds no *.h5"), std::string::npos);
  EXPECT_NE(open(" , ").find("empty"), std::string::npos);
  test::write_bytes(folder / "text.h5", "hello", 5);
  EXPECT_NE(open(folder / "text.h5").find("cannot be opened as HDF5"), std::string::npos);
}

// A shard with several targets per image has a version that older readers refuse. It can be used together with shards
// that have labels and other classes.
TEST(Shard, ImagesMayHaveSeveralTargets) {
  test::TemporaryFolder folder;
  const std::vector<std::vector<std::int32_t>> wanted = {{0, 2}, {}, {1}};
  auto entries = entries_of(0, 3);
  for (std::size_t i = 0; i < 3; ++i) {
    entries[i].label = -1;
    entries[i].targets = wanted[i];
  }
  write_shard(folder / "b.h5", 0, entries, {"dog", "horse", "cow"});
  EXPECT_EQ(h5::File::open(folder / "b.h5").get_int("/", "version"), 2);
  write_shard(folder / "a.h5", 0, 3);  // none, cat, dog
  const auto world = comm::Communicator::world();
  const auto set = DataSet::open(folder.path(), world);
  EXPECT_EQ(set.classes(), (std::vector<std::string>{"cat", "dog", "horse", "cow"}));
  EXPECT_TRUE(set.has_labels());
  const auto all = set.targets(0, 6);
  ASSERT_EQ(all.images(), 6U);
  const std::vector<std::vector<std::int32_t>> found = {{}, {0}, {1}, {1, 3}, {}, {2}};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(std::vector<std::int32_t>(all.of(i).begin(), all.of(i).end()), found[i]) << i;
  }
  EXPECT_EQ(set.targets(4, 2).values, std::vector<std::int32_t>{2});
  EXPECT_TRUE(DataSet::open(folder / "b.h5", world).has_labels());
  EXPECT_EQ(set.labels(2, 4), (std::vector<std::int32_t>{1, -1, -1, 2})) << "a single target is the label";

  // Without class names, targets stay as stored. Together with shards that have names, their meaning is unknown.
  write_shard(folder / "d.h5", 0, entries, {});
  EXPECT_EQ(DataSet::open(folder / "d.h5", world).targets(0, 3).values, (std::vector<std::int32_t>{0, 2, 1}));
  EXPECT_TRUE(DataSet::open((folder / "a.h5") + "," + (folder / "d.h5"), world).targets(3, 3).values.empty());

  // Impossible targets and ranges.
  auto broken = entries;
  broken[2].targets = {3};
  write_shard(folder / "c.h5", 0, broken, {"dog", "horse", "cow"});
  const auto damaged = DataSet::open(folder / "c.h5", world);
  EXPECT_NE(error_of([&] { damaged.targets(0, 3); }).find("image 2 has target 3, wanted 0 to 2"), std::string::npos);
  {
    auto file = h5::File::open(folder / "c.h5", nullptr, true);
    const std::uint64_t begin = 9;
    file.write("/images/target_begin", Type::u64, 1, 1, &begin);
  }
  EXPECT_NE(error_of([&] { damaged.targets(0, 3); }).find("image 0 has targets 0 to 9 of 3"), std::string::npos);
  const auto begins_at = [&](std::uint64_t begin, std::uint64_t place) {
    auto file = h5::File::open(folder / "c.h5", nullptr, true);
    file.write("/images/target_begin", Type::u64, place, 1, &begin);
    file.close();
    return error_of([&] { DataSet::open(folder / "c.h5", world); });
  };
  EXPECT_NE(begins_at(2, 3).find("target_begin runs from 0 to 2, wanted 0 to 3"), std::string::npos);
  EXPECT_NE(begins_at(1, 0).find("target_begin runs from 1 to 2, wanted 0 to 3"), std::string::npos);
}

TEST(Shard, ClassesMayBeNeitherPresentNorAbsent) {
  test::TemporaryFolder folder;
  const std::vector<std::vector<std::int32_t>> targets = {{}, {1}, {0, 2}}, ignored = {{2}, {}, {1}};
  auto entries = entries_of(0, 3);
  for (std::size_t i = 0; i < 3; ++i) {
    entries[i].label = -1;
    entries[i].targets = targets[i];
    entries[i].ignored = ignored[i];
  }
  for (const char* name : {"b.h5", "c.h5"}) write_shard(folder / name, 0, entries, {"dog", "horse", "cow"});
  write_shard(folder / "a.h5", 0, 3);
  const auto world = comm::Communicator::world();
  const auto set = DataSet::open(folder.path(), world);  // classes: cat, dog, horse, cow
  const auto found = set.ignored(1, 6);
  EXPECT_EQ(found.begins, (std::vector<std::uint64_t>{0, 0, 0, 1, 1, 2, 3}));
  EXPECT_EQ(found.values, (std::vector<std::int32_t>{3, 2, 3}));
  EXPECT_EQ(set.subset({0, 5}).ignored(0, 2).values, std::vector<std::int32_t>{2});
  EXPECT_EQ(set.targets(3, 3).values, (std::vector<std::int32_t>{2, 1, 3}));
  {
    auto file = h5::File::open(folder / "c.h5", nullptr, true);
    const std::int32_t value = 3;
    file.write("/images/ignored", Type::i32, 0, 1, &value);
  }
  EXPECT_NE(error_of([&] { set.ignored(6, 3); }).find("image 0 has target 3, wanted 0 to 2"), std::string::npos);
}

TEST(Shard, LabelsOutsideTheClassesAreFound) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder;
  write_shard(folder / "b.h5", 4, 4, {"cat"});  // labels up to 1
  const auto set = DataSet::open(folder / "b.h5", world);
  EXPECT_NE(error_of([&] { set.labels(0, 4); }).find("has label 1, wanted -1 to 0"), std::string::npos);
}

}  // namespace
}  // namespace seer::data
