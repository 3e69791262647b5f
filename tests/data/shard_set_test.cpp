// SPDX-License-Identifier: Apache-2.0
// Which shards form a data set: the set of one pack, missing and mixed shards, classes by name, names with commas.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "../../src/data/shard_set.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/streams.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "temporary.hpp"
#include "tiny_png.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using Classes = std::vector<std::string>;

const comm::Communicator& world() {
  static const auto w = comm::Communicator::world();
  return w;
}

/// Two images of 3 x 2 pixels with these labels.
void write(const std::string& path, const SetMark& set, const Classes& classes = {},
           const std::vector<std::int32_t>& labels = {-1, -1}) {
  const auto image = test::tiny_png(3, 2, 7);
  std::vector<ShardEntry> entries;
  for (const auto label : labels) entries.push_back({image.size(), checksum(image.data(), image.size()), 3, 2, label});
  ShardWriter writer(path, entries, classes, set);
  for (std::size_t i = 0; i < labels.size(); ++i) writer.append(image);
  writer.finish();
  writer.publish();
}

/// <name>-00000.h5 and so on, all of a set.
void write_set(const std::string& folder, const std::string& name, const std::string& id, std::uint64_t shards) {
  for (std::uint64_t i = 0; i < shards; ++i) write(shard_path(folder, name, i), {id, shards, i, 0});
}

/// The error of opening these files, or their number of images.
std::string opened(const std::string& pattern) {
  try {
    return std::to_string(DataSet::open(pattern, world()).images()) + " images";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::file);
    return e.message();
  }
}
#define EXPECT_SAYS(text, piece) EXPECT_NE((text).find(piece), std::string::npos) << (text)

TEST(ShardSet, AFolderHoldsWholeSets) {
  test::TemporaryFolder folder;
  write_set(folder.path(), "images", "a", 3);
  write_set(folder.path(), "train", "b", 2);
  write(folder / "old.h5", {});
  EXPECT_EQ(opened(folder.path()), "12 images");
  fs::remove(folder / "images-00001.h5");
  EXPECT_SAYS(opened(folder.path()), "set a has 3 shards, 2 of them are here, without number 1; pack again");
  // A user who names files chooses a part.
  EXPECT_EQ(opened(folder / "images-*.h5"), "4 images");
  EXPECT_EQ(opened(folder / "images-00002.h5"), "2 images");
  EXPECT_EQ(opened(folder / "images-00002.h5" + "," + folder / "train-*.h5"), "6 images");
  // A set may lie in two folders.
  fs::create_directory(folder / "more");
  write(folder / "more/images-00001.h5", {"a", 3, 1, 0});
  EXPECT_EQ(opened(folder.path() + "," + folder / "more"), "12 images");
}

TEST(ShardSet, PartsOfTwoPacksAreNotOne) {
  test::TemporaryFolder folder;
  write_set(folder.path(), "images", "a", 3);
  write(folder / "images-00001.h5", {"b", 3, 1, 0});
  for (const auto& pattern : {folder.path(), folder / "images-*.h5"}) {
    EXPECT_SAYS(opened(pattern),
                "images-*.h5 are parts of different packs: set a has 3 shards, 2 of them are here, "
                "without number 1; set b has 3 shards, 1 of them are here, without number 0, 2");
  }
  EXPECT_EQ(opened(folder / "images-00001.h5"), "2 images");
  write(folder / "images-00001.h5", {"a", 4, 1, 0});
  EXPECT_SAYS(opened(folder.path()), "says that set a has 4 shards");
}

TEST(ShardSet, CopiesOfAShardCountTwice) {
  test::TemporaryFolder folder;
  for (int i = 0; i < 5; ++i) write(shard_path(folder.path(), "images", static_cast<std::size_t>(i)), {"a", 1, 0, 0});
  EXPECT_EQ(opened(folder.path()), "10 images");
}

TEST(ShardSet, TheManifestListsWhatIsThere) {
  test::TemporaryFolder folder;
  for (std::size_t i = 0; i < 3; ++i) write(shard_path(folder.path(), "images", i), {});  // as of an older version
  Manifest manifest{true, {}};
  for (std::size_t i = 0; i < 2; ++i) {
    const fs::path path = shard_path(folder.path(), "images", i);
    manifest.files.push_back({path.filename(), "", 2, fs::file_size(path)});
  }
  write_manifest(folder.path(), "images", manifest);
  EXPECT_SAYS(opened(folder.path()), "images-00002.h5 is not among the 2 files of");
  EXPECT_SAYS(opened(folder / "*.h5"), "is not among the 2 files of");
  fs::remove(folder / "images-00002.h5");
  EXPECT_EQ(opened(folder.path()), "4 images");
  write(folder / "images-00001.h5", {"b", 1, 0, 0});
  EXPECT_SAYS(opened(folder.path()), "is not the file that");
  fs::remove(folder / "images-00001.h5");
  EXPECT_SAYS(opened(folder.path()), "1 of the 2 files that");
  EXPECT_EQ(opened(folder / "*.h5"), "2 images");

  manifest.complete = false;
  write_manifest(folder.path(), "images", manifest);
  EXPECT_SAYS(opened(folder.path()), "images-*.h5: the pack that wrote these files did not finish");
  EXPECT_SAYS(opened(folder / "*.h5"), "did not finish");
  write(folder / "other.h5", {});
  fs::remove(folder / "images-00000.h5");
  EXPECT_SAYS(opened(folder.path()), "did not finish");  // though no shard of that name is left
  test::write_bytes(folder / "images.manifest.json", "{\"format\": 1}", 13);
  EXPECT_SAYS(opened(folder.path()), "images.manifest.json");
}

TEST(ShardSet, MarksMustMakeSense) {
  test::TemporaryFolder folder;
  for (const auto& [mark, message] : {std::pair{SetMark{"a", 2, 2, 0}, "says it is shard 2 of 2 of set \"a\""},
                                      {SetMark{"a", 0, 0, 0}, "attribute set_shards is 0"},
                                      {SetMark{"a", 1, ~std::uint64_t{0}, 0}, "attribute set_number is -1"},
                                      {SetMark{"a", 1, 0, ~std::uint64_t{0}}, "attribute max_pixels is -1"}}) {
    write(folder / "x.h5", mark);
    EXPECT_SAYS(opened(folder.path()), message);
  }
}

TEST(ShardSet, ClassesAreThoseOfAllShardsByName) {
  test::TemporaryFolder folder;
  write(folder / "a.h5", {}, {"cat", "dog"}, {0, 1});
  write(folder / "b.h5", {}, {"ape", "cat", "owl"}, {0, 1, 2, -1});
  write(folder / "c.h5", {});
  write(folder / "d.h5", {}, {"owl"}, {0});
  const auto set = DataSet::open(folder.path(), world());
  EXPECT_EQ(set.classes(), (Classes{"cat", "dog", "ape", "owl"}));
  EXPECT_EQ(set.labels(0, 9), (std::vector<std::int32_t>{0, 1, 2, 0, 3, -1, -1, -1, 3}));
  EXPECT_EQ(set.labels(3, 2), (std::vector<std::int32_t>{0, 3}));
  EXPECT_TRUE(set.has_labels());
  write(folder / "d.h5", {}, {"owl"}, {1});  // outside its own list of classes, but inside the list of all classes
  EXPECT_THROW(DataSet::open(folder.path(), world()).labels(8, 1), Error);
}

TEST(ShardSet, CommasOfNamesAndOfLists) {
  test::TemporaryFolder folder;
  for (const char* name : {"a,b", "a", "c d"}) {
    fs::create_directory(folder / name);
    write_set(folder / name, "images", name, name == std::string("a,b") ? 3 : 1);
  }
  EXPECT_EQ(opened(folder / "a,b"), "6 images");
  EXPECT_EQ(opened(folder / "a,b/images-00001.h5"), "2 images");
  EXPECT_EQ(opened(folder / "a,b/*.h5"), "6 images");
  EXPECT_EQ(opened(folder / "a\\,b" + " , " + folder / "c d"), "8 images");
  EXPECT_EQ(opened(folder / "a" + "," + folder / "c d"), "4 images");
  EXPECT_SAYS(opened(folder / "a" + "," + folder / "none"), "commas separate names: write \\, for a comma of a name");
}

TEST(ShardSet, TheLimitOfPixelsGoesWithTheSet) {
  test::TemporaryFolder folder;
  write(folder / "a.h5", {"a", 1, 0, 70'000'000});
  EXPECT_EQ(DataSet::open(folder.path(), world()).max_pixels(), 70'000'000);
  write(folder / "b.h5", {"b", 1, 0, 5});
  EXPECT_EQ(DataSet::open(folder.path(), world()).max_pixels(), 70'000'000);
  EXPECT_EQ(DataSet::open(folder / "b.h5", world()).max_pixels(), 5);
  write(folder / "c.h5", {});
  EXPECT_EQ(DataSet::open(folder / "?.h5", world()).max_pixels(), 70'000'000);
  EXPECT_EQ(DataSet::open(folder / "c.h5", world()).max_pixels(), kUsualMaxPixels);
  // The images have 6 pixels: only those of the set that allows 5 count as bad.
  for (const auto& [file, bad] : {std::pair{"a.h5", 0}, {"b.h5", 2}}) {
    const auto set = DataSet::open(folder / file, world());
    EvalOptions options;
    options.crop = options.resize = 4;
    EvalReader reader(set, 0, 2, options);
    while (reader.next() != nullptr) {
    }
    EXPECT_EQ(reader.bad_images(), bad) << file;
  }
}

TEST(ShardSet, InspectNamesWhatIsNoShard) {
  const auto alone = world().split(world().rank());
  test::TemporaryFolder folder;
  auto look = [&](bool verify) { return nlohmann::json::parse(inspect_folder(folder.path(), verify, alone)); };
  write_set(folder.path(), "images", "a", 2);
  EXPECT_EQ(look(true).at("verified"), true);
  EXPECT_EQ(look(true).at("sets").at(0).at("shards"), "2 of 2 shards");
  EXPECT_FALSE(look(true).contains("problem"));
  // An HDF5 file that is not a shard is reported, and the folder does not count as verified.
  h5::File::create(folder / "other.h5").close();
  EXPECT_EQ(look(false).at("problems").at(0).at("file"), folder / "other.h5");
  EXPECT_FALSE(look(false).contains("problem"));
  EXPECT_EQ(look(true).at("verified"), false);
  EXPECT_SAYS(look(true).at("problem").get<std::string>(), "other.h5: is not a shard");
  fs::remove(folder / "other.h5");
  // A file that is not HDF5, and a part of a set: both are refused, with and without verify.
  test::write_bytes(folder / "text.h5", "hello", 5);
  EXPECT_SAYS(look(false).at("problem").get<std::string>(), "text.h5: ");
  EXPECT_EQ(look(true).at("verified"), false);
  fs::remove(folder / "text.h5");
  fs::remove(folder / "images-00000.h5");
  EXPECT_SAYS(look(false).at("problem").get<std::string>(), "without number 0");
  // A single file without checksums.
  h5::File::create(folder / "other.h5").close();
  const auto other = nlohmann::json::parse(inspect_hdf5(folder / "other.h5", true, alone));
  EXPECT_EQ(other.at("verified"), false);
  EXPECT_EQ(other.at("problem"), kNothingToCompare);
}

TEST(ShardSet, TooManyOpenFilesHasItsRemedyWhateverFails) {
  for (const char* what : {"cannot write run/config.toml: Too many open files", "a.h5: Too many open files"}) {
    EXPECT_SAYS(Error(ExitCode::file, what, "free space").remedy(), "the limit on open files of a process is");
  }
  EXPECT_EQ(Error(ExitCode::file, "full", "free space").remedy(), "free space");
}

}  // namespace
}  // namespace seer::data
