// SPDX-License-Identifier: Apache-2.0
// pack and synth write the same bytes on any number of ranks: compares all ranks together with rank 0 alone.
#include "seer/data/pack.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "../pack_support.hpp"
#include "seer/base/error.hpp"
#include "seer/data/image.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;

const char* const kImages[] = {"rgb.jpg", "cmyk.jpg", "orientation6.jpg", "rgb.png", "palette.png", "lossy.webp"};

// 90 good images in three classes below train, 30 below test, and one file of each kind that is refused.
void make_photos(const std::string& folder) {
  int n = 0;
  for (const auto& [split, each] : {std::pair{"train", 30}, {"test", 10}}) {
    for (const char* name : {"zebra", "ape", "cat"}) {
      const auto to = folder + "/" + split + "/" + name;
      fs::create_directories(to);
      for (int i = 0; i < each; ++i, ++n) {
        auto bytes = test::test_image(kImages[n % 6]);
        bytes.push_back(static_cast<char>(n));  // bytes after the end belong to the file
        test::write_bytes(to + "/" + std::to_string(i) + ".jpg", bytes.data(), bytes.size());
      }
    }
  }
  const auto jpeg = test::test_image("rgb.jpg");
  test::write_bytes(folder + "/train/cat/empty.jpg", "", 0);
  test::write_bytes(folder + "/train/cat/cut.jpg", jpeg.data(), jpeg.size() / 2);
  test::write_bytes(folder + "/train/cat/readme.txt", "hello", 5);
  for (const char* name : {"bomb.png", "picture.gif", "animated.webp"}) {
    const auto bytes = test::test_image(name);
    test::write_bytes(folder + "/train/cat/" + name, bytes.data(), bytes.size());
  }
  const auto first = test::read_bytes(folder + "/train/ape/0.jpg");
  test::write_bytes(folder + "/train/zebra/again.jpg", first.data(), first.size());
}

class PackMpi : public test::PackTest {
 protected:
  PackMpi() {
    on_root([&] {
      make_photos(folder_ / "photos");
      test::write_file(folder_ / "photos.tar", test::tar_of_folder(folder_ / "photos"));
    });
  }
};

TEST_F(PackMpi, FoldersGiveTheSameFilesOnAnyNumberOfRanks) {
  const auto r = both(options("photos", "out"));
  EXPECT_EQ(r.accepted, 121U);
  EXPECT_EQ(r.classes, (std::vector<std::string>{"ape", "cat", "zebra"}));
  EXPECT_GE(r.shards, 4U);
  EXPECT_EQ(r.rejected,
            (std::map<std::string, std::uint64_t>{
                {"broken", 1}, {"empty", 1}, {"not an image", 1}, {"not supported", 2}, {"over the pixel limit", 1}}));
  const auto set = DataSet::open(folder_ / "out", world_);
  EXPECT_EQ(set.images(), 121U);
  EXPECT_EQ(set.shards().size(), r.shards);
  // The order is that of the paths: test/ape comes first. Each image is unchanged and has its class.
  std::vector<std::uint8_t> bytes;
  set.read_image(0, bytes);
  EXPECT_EQ(bytes, test::read_bytes(folder_ / "photos/test/ape/0.jpg"));
  EXPECT_EQ(set.labels(0, 1)[0], 0);
  EXPECT_EQ(set.labels(120, 1)[0], 2);
  for (const auto& s : set.shards()) EXPECT_LE(s.pixels_bytes, 20000U);
}

TEST_F(PackMpi, ArchivesHoldTheSameImages) {
  const auto r = both(options("photos.tar", "tar"));
  EXPECT_EQ(r.accepted, 121U);
  pack(options("photos", "out"), world_);
  if (!world_.is_root()) return;
  // Same order, same names within the source: the same shards.
  for (const auto& name : test::names_in(folder_ / "out")) {
    if (name.ends_with(".h5")) {
      EXPECT_EQ(test::read_bytes(folder_ / ("out/" + name)), test::read_bytes(folder_ / ("tar/" + name)));
    }
  }
}

TEST_F(PackMpi, ListsSplitsAndFilters) {
  if (world_.is_root()) {
    const std::string list = "photos/train/ape/1.jpg\r\n\nphotos/train/cat/2.jpg\nphotos/none.jpg\n";
    test::write_bytes(folder_ / "list.txt", list.data(), list.size());
  }
  world_.barrier();
  const auto listed = both(options("list.txt", "list"));
  EXPECT_EQ(listed.accepted, 2U);
  EXPECT_EQ(listed.rejected.at("unreadable"), 1U);

  auto o = options("photos", "train");
  o.split = "train";
  o.reject_duplicates = true;
  o.labels = false;
  const auto train = both(o);
  EXPECT_EQ(train.accepted, 90U);
  EXPECT_EQ(train.rejected.at("duplicate"), 1U);
  EXPECT_TRUE(train.classes.empty());
  const auto set = DataSet::open(folder_ / "train/train-*.h5", world_);
  EXPECT_FALSE(set.has_labels());

  o.min_side = 17;  // all are 16 x 24
  o.existing = Existing::replace;
  EXPECT_THROW(pack(o, world_), Error);
  // rejects.jsonl: path, reason and bytes of each.
  if (world_.is_root()) {
    std::ifstream in(folder_ / "train/rejects.jsonl");
    std::size_t small = 0;
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      EXPECT_TRUE(j.at("path").is_string() && j.at("bytes").is_number());
      small += j.at("reason").get<std::string>().starts_with("too small") ? 1U : 0U;
    }
    EXPECT_EQ(small, 91U);
  }
}

TEST_F(PackMpi, LeftoversAndLongerEarlierRunsGo) {
  if (world_.is_root()) {
    fs::create_directories(folder_ / "out");
    test::write_bytes(folder_ / "out/images-00007.h5.tmp", "half", 4);
    test::write_bytes(folder_ / "out/other-00007.h5.tmp", "half", 4);
  }
  world_.barrier();
  auto o = options("photos", "out");
  pack(o, world_);
  o.shard_bytes = 1 << 30;
  o.existing = Existing::replace;
  pack(o, world_);
  if (!world_.is_root()) return;
  EXPECT_EQ(test::names_in(folder_ / "out"), (std::vector<std::string>{"images-00000.h5", "images.manifest.json",
                                                                       "other-00007.h5.tmp", "rejects.jsonl"}));
}

TEST_F(PackMpi, ShardsThatAreThereAreReplacedOrAppendedTo) {
  auto o = options("photos/train/ape", "out");
  o.reject_duplicates = true;
  const auto first = pack(o, world_);
  try {
    pack(o, world_);
    ADD_FAILURE() << "packed over a set";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(e.message().find("--append"), std::string::npos);
  }
  // Appends the images of another folder, and none of those that the set already holds.
  o.sources = {folder_ / "photos/train/ape", folder_ / "photos/test"};
  o.existing = Existing::append;
  const auto more = pack(o, world_);
  EXPECT_EQ(more.accepted, 30U);
  EXPECT_EQ(more.rejected.at("duplicate"), first.accepted);
  const auto set = DataSet::open(o.folder, world_);
  EXPECT_EQ(set.images(), first.accepted + more.accepted);
  EXPECT_EQ(set.shards().size(), first.shards + more.shards);
  EXPECT_EQ(set.classes(), (std::vector<std::string>{"ape", "cat", "zebra"}));
  EXPECT_EQ(set.shards().back().set.number + 1, more.shards);
  EXPECT_NE(set.shards().front().set.id, set.shards().back().set.id);

  o.existing = Existing::replace;
  o.max_pixels = 60'000'000;
  const auto anew = pack(o, world_);
  EXPECT_EQ(DataSet::open(o.folder, world_).images(), anew.accepted);
  EXPECT_EQ(DataSet::open(o.folder, world_).max_pixels(), 60'000'000);

  SynthOptions s;
  s.folder = folder_ / "synth";
  s.images = 5;
  s.size = 16;
  synth(s, world_);
  EXPECT_THROW(synth(s, world_), Error);
  s.existing = Existing::append;
  synth(s, world_);
  const auto twice = DataSet::open(s.folder, world_);
  s.folder = folder_ / "synth-once";
  s.images = 10;
  synth(s, world_);
  const auto once = DataSet::open(s.folder, world_);
  std::vector<std::uint8_t> a, b;
  for (std::uint64_t i = 0; i < 10; ++i) {
    twice.read_image(i, a);
    once.read_image(i, b);
    EXPECT_EQ(a, b) << i;
  }
}

TEST_F(PackMpi, ErrorsAreTheSameOnEveryRank) {
  EXPECT_NE(message(options("missing", "out")).find("no such file or folder"), std::string::npos);
  EXPECT_NE(message(options("photos", "photos.tar/out")).find("cannot be made"), std::string::npos);
  auto o = options("photos", "out");
  o.split = "validation";
  EXPECT_NE(message(o).find("no folder validation directly inside"), std::string::npos);
  if (world_.is_root()) {
    const auto tar = test::read_bytes(folder_ / "photos.tar");
    test::write_bytes(folder_ / "cut.tar", tar.data(), tar.size() / 2 + 700);
  }
  world_.barrier();
  EXPECT_NE(message(options("cut.tar", "out")).find("broken archive"), std::string::npos);
}

TEST_F(PackMpi, SynthGivesTheSameFilesOnAnyNumberOfRanks) {
  SynthOptions o;
  o.folder = folder_ / "synth";
  o.images = 75;
  o.size = 16;
  o.classes = 7;
  const auto r = synth(o, world_);
  EXPECT_EQ(r.images, 75U);
  const auto set = DataSet::open(o.folder, world_);
  EXPECT_EQ(set.images(), 75U);
  EXPECT_EQ(set.classes().size(), 7U);
  EXPECT_TRUE(std::is_sorted(set.classes().begin(), set.classes().end()));
  std::vector<std::uint8_t> bytes;
  set.read_image(9, bytes);
  Image image;
  decode(bytes, 1000, image);
  EXPECT_EQ(image.width, 16);
  EXPECT_EQ(set.classes()[static_cast<std::size_t>(set.labels(9, 1)[0])], synth_class_name(2));
  if (world_.is_root()) {
    o.folder = folder_ / "synth-alone";
    synth(o, alone_);
    test::expect_equal_folders(folder_ / "synth", o.folder);
  }
}

TEST(DataSetMpi, EveryRankSeesTheSameOrTheSameError) {
  const auto world = comm::Communicator::world();
  test::TemporaryFolder folder(&world);
  EXPECT_THROW(DataSet::open(folder.path(), world), Error);
  if (world.is_root()) test::write_bytes(folder / "a.h5", "nonsense", 8);
  world.barrier();
  EXPECT_THROW(DataSet::open(folder.path(), world), Error);
}

}  // namespace
}  // namespace seer::data
