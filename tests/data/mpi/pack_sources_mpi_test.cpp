// SPDX-License-Identifier: Apache-2.0
// Which files of the sources pack takes, and what it says about the others. Every case also runs on one rank alone.
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "../pack_support.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"
#include "seer/data/shard.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using test::tar_of;
using test::TarEntry;
using Names = std::vector<std::string>;
using Counts = std::map<std::string, std::uint64_t>;

class PackSources : public test::PackTest {
 protected:
  /// Small files of different bytes that all decode.
  std::string image(int n) { return test::test_image("rgb.png") + std::string(1, static_cast<char>(n)); }
  void photo(const std::string& path, int n = 0) { test::write_file(folder_ / path, image(n)); }
  void link(const std::string& target, const std::string& path) {
    fs::create_directories(fs::path(folder_ / path).parent_path());
    fs::create_symlink(target, folder_ / path);
  }
  /// /images/name of all shards, in order.
  Names names(const std::string& set) {
    Names out;
    for (const auto& file : test::names_in(folder_ / set)) {
      if (!file.ends_with(".h5")) continue;
      const auto path = folder_ / (set + "/" + file);
      const auto [n, length] = h5::File::open(path).describe_strings("/images/name");
      std::string all(n * length, '\0');
      const h5::Id shard(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
      const h5::Id column(H5Dopen2(shard, "/images/name", H5P_DEFAULT), H5Dclose);
      const h5::Id type(H5Dget_type(column), H5Tclose);
      EXPECT_GE(H5Dread(column, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()), 0);
      for (std::uint64_t i = 0; i < n; ++i) out.emplace_back(all.substr(i * length, length).c_str());
    }
    return out;
  }
  /// Reasons in rejects.jsonl by path within the test's folder.
  std::map<std::string, std::string> rejects(const std::string& set) {
    std::map<std::string, std::string> out;
    std::ifstream in(folder_ / (set + "/rejects.jsonl"));
    for (std::string line; std::getline(in, line);) {
      const auto j = nlohmann::json::parse(line);
      const auto path = j.at("path").get<std::string>();
      out[path.substr(std::min(path.size(), folder_.path().size() + 1))] = j.at("reason");
    }
    return out;
  }
  bool warned(const std::string& text) {
    const auto all = log::warnings();
    return !world_.is_root() ||
           std::any_of(all.begin(), all.end(), [&](const auto& w) { return w.find(text) != std::string::npos; });
  }
};

TEST_F(PackSources, ASplitIsAFolderDirectlyInside) {
  on_root([&] {
    int n = 0;
    for (const char* name : {"train/cat/1.png", "train/cat/test/2.png", "train/test.png", "test/cat/9.png"}) {
      photo(std::string("test/photos/") + name, n++);
    }
    std::vector<TarEntry> plain, dotted, topped{{"._photos", "x"}, {"__MACOSX/photos/._a", "x"}};
    std::string list, absolute;
    for (const auto& e : fs::recursive_directory_iterator(folder_ / "test/photos")) {
      if (!e.is_regular_file()) continue;
      const auto name = fs::relative(e.path(), folder_ / "test/photos").string();
      const auto bytes = test::bytes_of(e.path().string());
      plain.push_back({name, bytes});
      dotted.push_back({"./" + name, bytes});
      topped.push_back({"photos/" + name, bytes});
      list += "test/photos/" + name + "\n";
      absolute += e.path().string() + "\n";
    }
    test::write_file(folder_ / "test/plain.tar", tar_of(plain));
    test::write_file(folder_ / "test/dotted.tar", tar_of(dotted));
    test::write_file(folder_ / "test/topped.tar", tar_of(topped));
    for (auto& e : topped) e.name = "test/" + e.name.substr(e.name.find('/') + 1);
    test::write_file(folder_ / "test/named.tar", tar_of(topped));  // the top folder has the split's name
    test::write_file(folder_ / "list.txt", list);
    test::write_file(folder_ / "test/absolute.txt", absolute);
  });
  for (const char* source : {"test/named.tar", "test/photos", "test/plain.tar", "test/dotted.tar", "test/topped.tar",
                             "list.txt", "test/absolute.txt"}) {
    SCOPED_TRACE(source);
    const auto to = "out-" + fs::path(source).filename().string();
    auto o = options(source, to);
    o.split = "test";
    const auto r = both(o);
    EXPECT_EQ(r.accepted, 1U);
    EXPECT_EQ(r.left_out.at("not in the split"), 3U);
    if (world_.is_root()) {
      EXPECT_TRUE(names(to).at(0).ends_with("test/cat/9.png"));
    }
    o.folder += "-none";
    o.split = "photos";  // the source folder itself, or a folder above all paths of a list
    EXPECT_NE(message(o).find("no folder photos directly inside the sources, which hold the folders test, train"),
              std::string::npos);
  }
}

TEST_F(PackSources, SplitsThatTakeAllOrNothingOrLieTogetherAreWarnedOf) {
  on_root([&] {
    photo("a/train/cat/1.png", 1);
    photo("b/Train/cat/2.png", 2);
    photo("b/valid/cat/3.png", 3);
    test::write_file(folder_ / "c.tar", tar_of({{"c/train/1.png", image(1)}, {"c/test/2.png", image(2)}}));
    test::write_file(folder_ / "d/train.tar", tar_of({{"cat/1.png", image(1)}}));
    test::write_file(folder_ / "d/test.tar", tar_of({{"cat/2.png", image(2)}}));
  });
  auto o = options("a", "out");
  o.split = "train";
  o.sources.push_back(folder_ / "b");
  EXPECT_EQ(pack(o, world_).accepted, 1U);
  EXPECT_TRUE(warned("no folder train directly inside " + folder_ / "b" + ", which holds the folders Train, valid"));
  o.sources.pop_back();
  o.folder += "-one";
  EXPECT_EQ(pack(o, world_).accepted, 1U);
  EXPECT_TRUE(warned("--split train takes all 1 files of"));
  for (const auto& [source, folders] :
       {std::pair{"b", "Train, valid"}, {"c.tar", "test, train"}, {"d", "test.tar, train.tar"}}) {
    EXPECT_EQ(pack(options(source, std::string("mixed-") + source), world_).accepted, 2U);
    EXPECT_TRUE(warned(std::string("the folders ") + folders + " of"));
  }
  o = options("d", "test-only");
  o.split = "test";
  const auto r = both(o);
  EXPECT_EQ(r.accepted, 1U);
  EXPECT_EQ(r.classes, Names{"cat"});
}

TEST_F(PackSources, LinksAreFollowedAndEachFileIsTakenOnce) {
  on_root([&] {
    photo("store/dog/1.png", 1);
    photo("store/alone.png", 2);
    photo("src/cat/3.png", 3);
    link("../store/dog", "src/dog");
    link("cat", "src/again");
    link("..", "src/cat/up");
    link("../cat/3.png", "src/cow/twice.png");
    link("../../store/alone.png", "src/cow/a.png");
    link("../../store/alone.png", "src/cow/b.png");
    link("nowhere", "src/cat/broken.png");
    link("loop", "src/loop");
    ASSERT_EQ(::mkfifo((folder_ / "src/pipe").c_str(), 0600), 0);
    fs::create_directories(folder_ / "src/locked");
    fs::permissions(folder_ / "src/locked", fs::perms::none);
  });
  const auto r = both(options("src", "out"));
  on_root([&] { fs::permissions(folder_ / "src/locked", fs::perms::all); });
  EXPECT_EQ(r.accepted, 3U);
  EXPECT_EQ(r.classes, (Names{"cat", "cow", "dog"}));
  EXPECT_EQ(r.rejected.at("repeated"), 4U);
  EXPECT_GE(r.rejected.at("unreadable"), 3U);
  if (world_.is_root()) {
    const auto why = rejects("out");
    EXPECT_EQ(why.at("src/again/"), "repeated: the same folder as " + folder_ / "src/cat");
    EXPECT_EQ(why.at("src/cat/up/"), "repeated: the same folder as " + folder_ / "src");
    EXPECT_TRUE(why.at("src/cow/twice.png").starts_with("repeated: a link to"));
    EXPECT_TRUE(why.at("src/cow/b.png").starts_with("repeated: a link to"));
    EXPECT_EQ(why.at("src/cat/broken.png"), "unreadable: a broken link to nowhere");
    EXPECT_TRUE(why.at("src/loop").starts_with("unreadable: "));
    EXPECT_EQ(why.at("src/pipe"), "unreadable: a pipe");
    if (::geteuid() != 0) {
      EXPECT_TRUE(why.at("src/locked/").starts_with("unreadable: the folder cannot be listed"));
    }
    EXPECT_EQ(names("out"), (Names{"cat/3.png", "cow/a.png", "dog/1.png"}));
  }
  // Also over several sources. A linked folder stays in its split, even if another split holds the same folder.
  auto twice = options("src/cat", "twice");
  twice.sources.push_back(folder_ / "src/cat");
  EXPECT_EQ(both(twice).accepted, 3U);  // one in the folder, two behind the link "up"
  on_root([&] {
    photo("splits/train/cow/1.png", 1);
    link("../train/cow", "splits/test/cow");
    photo("splits/loose.png", 2);
    link("../loose.png", "splits/test/2.png");
    link("train", "splits/other");
  });
  auto test = options("splits", "splits-test");
  test.split = "test";
  EXPECT_EQ(both(test).accepted, 2U);
  if (world_.is_root()) {
    EXPECT_EQ(names("splits-test"), (Names{"test/2.png", "test/cow/1.png"}));
  }
  test.split = "none";
  EXPECT_NE(message(test).find("which hold the folders other, test, train"), std::string::npos);
}

TEST_F(PackSources, HiddenNamesAreLeftOutAndCounted) {
  const Names all = {"cat/1.png",
                     "cat/.ipynb_checkpoints/1.png",
                     "cat/.ipynb_checkpoints/2.png",
                     "cat/._1.png",
                     "__MACOSX/cat/1.png",
                     "@eaDir/1.png",
                     "cat/Thumbs.db",
                     "cat/.x.png"};
  on_root([&] {
    std::vector<TarEntry> entries;
    std::string list;
    for (std::size_t i = 0; i < all.size(); ++i) {
      photo(".photos/" + all[i], static_cast<int>(i));
      entries.push_back({all[i], image(static_cast<int>(i))});
      list += folder_ / ".photos/" + all[i] + "\n";
    }
    test::write_file(folder_ / "photos.tar", tar_of(entries));
    test::write_file(folder_ / "list.txt", list);
  });
  for (const char* source : {".photos", "photos.tar", "list.txt"}) {
    SCOPED_TRACE(source);
    auto o = options(source, std::string("out-") + source);
    const auto r = both(o);
    EXPECT_EQ(r.accepted, 1U);
    EXPECT_EQ(r.classes, Names{"cat"});
    EXPECT_EQ(r.left_out, (Counts{{"hidden: .ipynb_checkpoints", 1},
                                  {"hidden: ._*", 1},
                                  {"hidden: .x.png", 1},
                                  {"hidden: @eaDir", 1},
                                  {"hidden: Thumbs.db", 1},
                                  {"hidden: __MACOSX", 1}}));
    if (world_.is_root()) {
      EXPECT_FALSE(rejects(std::string("out-") + source).empty());
    }
    o.hidden = true;
    o.folder += "-all";
    EXPECT_EQ(both(o).accepted, all.size());
  }
  on_root([&] { photo("only/.trash/1.png"); });
  EXPECT_NE(message(options("only", "out")).find("only hidden files"), std::string::npos);
  EXPECT_EQ(both(options("only/.trash/1.png", "one")).accepted, 1U);
}

TEST_F(PackSources, NamesThatAreNoUtf8StayApart) {
  const Names folders = {"caf\xE9", "caf\\xE9", "caf\xE8", "caf\xC3\xA9"};
  on_root([&] {
    for (std::size_t i = 0; i < folders.size(); ++i)
      photo("p/" + folders[i] + "/" + std::string(250, 'x') + "\xFF.png", static_cast<int>(i));
  });
  const auto r = both(options("p", "out"));
  EXPECT_EQ(r.classes, (Names{"caf\\x5CxE9", "caf\\xE8", "caf\\xE9", "caf\xC3\xA9"}));
  if (!world_.is_root()) return;
  const auto classes = h5::File::open(folder_ / "out/images-00000.h5").get_strings("/", "classes");
  for (const auto& name : classes) EXPECT_TRUE(is_utf8(name)) << name;
  for (const auto& name : names("out"))
    EXPECT_TRUE(is_utf8(name) && name.ends_with("x\\xFF.png") && name.size() <= 255) << name;
}

TEST_F(PackSources, ListsOfOtherEditors) {
  on_root([&] {
    for (const char* name : {"a.png", "b.png", "#c.png"}) photo(std::string("l/") + name, name[0]);
    test::write_file(folder_ / "l/list.txt",
                     "\xEF\xBB\xBF"
                     "a.png\r\n\r\nb.png \t\r\n  \n#c.png");
    test::write_file(folder_ / "l/wide.txt", std::string("\xFF\xFE"
                                                         "a\0.\0p\0n\0g\0",
                                                         12));
    test::write_file(folder_ / "l/nulls.txt", std::string("a.png\0b.png\0", 12));
  });
  const auto r = both(options("l/list.txt", "out"));
  EXPECT_EQ(r.accepted, 3U);
  EXPECT_TRUE(r.rejected.empty());
  EXPECT_NE(message(options("l/wide.txt", "wide")).find("found UTF-16 text, wanted UTF-8: iconv -f UTF-16"),
            std::string::npos);
  EXPECT_NE(message(options("l/nulls.txt", "nulls")).find("a list is UTF-8 text with one path a line"),
            std::string::npos);
}

TEST_F(PackSources, ArchivesInsideAreRead) {
  on_root([&] {
    const auto n01 = tar_of({{"n01_1.png", image(1)}, {"./n01_2.png", image(2)}});
    const auto n02 = tar_of({{"n02_1.png", image(3)}, {"wolf/n02_2.png", image(4)}});
    test::write_file(folder_ / "tars/n01.tar", n01);
    test::write_file(folder_ / "tars/n02.TAR", n02);
    test::write_file(folder_ / "all.tar", tar_of({{"n01.tar", n01}, {"deeper/n02.tar", n02}}));
    test::write_file(folder_ / "deep/all.tar", tar_of({{"n01.tar", n01}, {"more.tar", tar_of({{"n02.tar", n02}})}}));
    test::write_file(folder_ / "list.txt", "tars/n01.tar\ntars/n02.TAR\n");
  });
  for (const char* source : {"tars", "all.tar", "list.txt"}) {
    SCOPED_TRACE(source);
    const auto r = both(options(source, std::string("out-") + source));
    EXPECT_EQ(r.accepted, 4U);
    EXPECT_EQ(r.classes, (Names{"n01", "n02", "wolf"}));
    EXPECT_EQ(r.archives, 2U);
    EXPECT_EQ(r.of_archive, 3U);
  }
  if (world_.is_root()) {
    EXPECT_EQ(names("out-all.tar"), (Names{"n01.tar/n01_1.png", "n01.tar/n01_2.png", "deeper/n02.tar/n02_1.png",
                                           "deeper/n02.tar/wolf/n02_2.png"}));
  }
  EXPECT_EQ(both(options("tars/n01.tar", "flat")).classes, Names{"n01"});
  on_root([&] { photo("tars/n01/n01_1.png", 1); });  // unpacked beside its archive
  EXPECT_EQ(both(options("tars", "beside")).accepted, 5U);
  EXPECT_TRUE(warned("holds 2 archives and, beside them, 1 images: all are packed"));
  const auto deep = both(options("deep", "out-deep"));
  EXPECT_EQ(deep.accepted, 2U);
  EXPECT_EQ(deep.rejected, (Counts{{"not supported", 1}}));
  if (world_.is_root()) {
    EXPECT_TRUE(rejects("out-deep").at("deep/all.tar:more.tar:n02.tar").ends_with("pack its folder"));
  }
}

TEST_F(PackSources, BrokenArchivesInsideCostNoOthers) {
  on_root([&] {
    const auto good = tar_of({{"1.png", image(1)}, {"2.png", image(2)}, {"3.png", image(3)}});
    const auto cut = good.substr(0, (good.size() - 1024) / 3 + 512 + 50);  // in the second file's bytes
    const std::vector<TarEntry> all = {{"a.tar", good},    {"b.tar", cut}, {"c.tar", "no archive at all"},
                                       {"d.tar.gz", good}, {"e.tar", ""},  {"f.tar", tar_of({})}};
    for (const auto& e : all) test::write_file(folder_ / ("tars/" + e.name), e.bytes);
    test::write_file(folder_ / "all.tar", tar_of(all));
    const auto outer = tar_of({{"a.tar", good}, {"b.tar", good}});
    test::write_file(folder_ / "cut.tar", outer.substr(0, outer.size() - 4096));
  });
  for (const char* source : {"tars", "all.tar"}) {
    SCOPED_TRACE(source);
    const auto r = both(options(source, std::string("out-") + source));
    EXPECT_EQ(r.accepted, 7U);  // all of a, the first of b, and all of d, which is not compressed
    EXPECT_EQ(r.rejected, (Counts{{"broken archive", 2}, {"empty", 2}, {"unreadable", 1}}));
  }
  EXPECT_NE(message(options("cut.tar", "out")).find("cut.tar: broken archive after 2 entries"), std::string::npos);
}

TEST_F(PackSources, PiecesOfAWebdatasetAreNoClasses) {
  on_root([&] {
    for (int piece = 0; piece < 2; ++piece) {
      const auto name = std::to_string(piece);
      test::write_file(
          folder_ / ("web/shard-" + name + ".tar"),
          tar_of({{name + ".cls", "3"}, {name + ".png", image(piece)}, {"x" + name + ".png", image(piece + 9)}}));
    }
  });
  const auto r = both(options("web", "out"));
  EXPECT_EQ(r.accepted, 4U);
  EXPECT_TRUE(r.classes.empty());
  EXPECT_TRUE(warned("webdataset"));
}

TEST_F(PackSources, HolesOfSparseFilesAreZeros) {
  const auto png = test::test_image("rgb.png");
  on_root([&] {
    test::write_file(folder_ / "s.tar", tar_of({{"c/tail.png", png, png.size() + 5000, 0},
                                                {"c/head.png", png, png.size() + 1024, 1024},
                                                {"c/huge.png", png, std::size_t{1} << 30, 0},
                                                {"c/dense.png", png},
                                                {"in.tar", tar_of({{"c/inner.png", png}}), 40960, 0}}));
  });
  const auto r = both(options("s.tar", "out"));
  EXPECT_EQ(r.accepted, 3U);
  EXPECT_EQ(r.rejected, (Counts{{"not an image", 1}, {"too large", 1}}));
  if (!world_.is_root()) return;
  const auto set = DataSet::open(folder_ / "out", alone_);
  std::vector<std::uint8_t> bytes;
  set.read_image(0, bytes);
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), png + std::string(5000, '\0'));
}

}  // namespace
}  // namespace seer::data
