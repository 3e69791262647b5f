// SPDX-License-Identifier: Apache-2.0
// Packing with label files, lists and subsets. Every case also runs on one rank alone.
#include <map>

#include "../pack_support.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {
namespace {

using test::tar_of_folder;
using Names = std::vector<std::string>;

class PackLabels : public test::PackTest {
 protected:
  /// Small files of different bytes that all decode.
  void photo(const std::string& path, int n) {
    test::write_file(folder_ / path, test::test_image("rgb.png") + std::string(1, static_cast<char>(n)));
  }
  void text(const std::string& path, const std::string& content) { test::write_file(folder_ / path, content); }
  /// Six images in three folders.
  void photos() {
    on_root([&] {
      int n = 0;
      for (const char* name : {"cat/1.png", "cat/2.png", "cow/1.png", "dog/3.png", "dog/4.png", "dog/5.png"})
        photo(std::string("photos/") + name, ++n);
      text("photos/README.txt", "no image");
      text("labels.csv",
           "file,label\ncat/1.png,cat\ncat/2.png,cat\ncow/1.png,cow\ndog/3.png,dog\ndog/4.png,dog\ndog/5.png,dog\n");
    });
  }
  PackOptions labelled(const std::string& source, const std::string& to, const std::string& labels) {
    auto o = options(source, to);
    o.label_file = folder_ / labels;
    return o;
  }
  /// The class of each packed image, by name, by the last byte of the image (photo()'s n).
  std::map<int, Names> packed(const std::string& set) {
    const auto data = DataSet::open(folder_ / set, world_);
    const auto targets = data.targets(0, data.images()), ignored = data.ignored(0, data.images());
    std::map<int, Names> out;
    std::vector<std::uint8_t> bytes;
    for (std::uint64_t i = 0; i < data.images(); ++i) {
      data.read_image(i, bytes);
      auto& names = out[bytes.back()];
      for (const auto c : targets.of(i)) names.push_back(data.classes()[static_cast<std::size_t>(c)]);
      for (const auto c : ignored.of(i)) names.push_back("(" + data.classes()[static_cast<std::size_t>(c)] + ")");
    }
    return out;
  }
};

TEST_F(PackLabels, ATableSaysTheSameAsTheFolders) {
  photos();
  on_root([&] {
    test::write_file(folder_ / "photos.tar", tar_of_folder(folder_ / "photos"));
    std::string list;
    for (const char* name : {"cat/1.png", "cat/2.png", "cow/1.png", "dog/3.png", "dog/4.png", "dog/5.png"})
      list += folder_ / ("photos/" + std::string(name)) + "\n";
    text("files.txt", list);
    text("short.csv", "3.png,dog\n4.png,dog\n5.png,dog\ncow/1.png,cow\ncat/1.png,cat\n2.png,cat\n");
    text("long.csv",
         "a/photos/dog/3.png dog\na/photos/dog/4.png dog\na/photos/dog/5.png dog\n"
         "a/photos/cow/1.png cow\na/photos/cat/1.png cat\na/photos/cat/2.png cat\n");
  });
  pack(options("photos", "folders"), world_);
  const std::map<int, Names> wanted = {{1, {"cat"}}, {2, {"cat"}}, {3, {"cow"}},
                                       {4, {"dog"}}, {5, {"dog"}}, {6, {"dog"}}};
  EXPECT_EQ(packed("folders"), wanted);
  const auto shards = test::names_in(folder_ / "folders");
  int n = 0;
  for (const char* source : {"photos", "photos.tar", "files.txt"})
    for (const char* labels : {"labels.csv", "short.csv", "long.csv"}) {
      const auto to = "set" + std::to_string(++n);
      EXPECT_EQ(both(labelled(source, to, labels)).accepted, 6U);
      EXPECT_EQ(packed(to), wanted) << source << " " << labels;
      if (std::string(source) != "files.txt" || std::string(labels) != "labels.csv") continue;
      EXPECT_EQ(test::names_in(folder_ / to), shards);
    }
  for (const auto& name : shards) {
    if (!name.ends_with(".h5")) continue;
    EXPECT_EQ(test::read_bytes(folder_ / ("folders/" + name)), test::read_bytes(folder_ / ("set1/" + name))) << name;
  }
}

TEST_F(PackLabels, SeveralClassesAndIgnoredOnes) {
  photos();
  on_root([&] {
    text("several.csv",
         "dog/3.png,dog;cat\ncat/1.png,cat\ncat/2.png,\ncow/1.png,cow\ndog/4.png,dog\ndog/5.png,dog|cow|cat\n");
    const auto xml = [&](const std::string& name, const std::string& objects) {
      text("voc/" + name + ".xml", "<annotation><filename>" + name + ".png</filename>" + objects + "</annotation>");
    };
    const auto object = [](const std::string& name, int hard) {
      return "<object><name>" + name + "</name><difficult>" + std::to_string(hard) + "</difficult></object>";
    };
    xml("2", object("cat", 1));
    xml("3", object("dog", 0) + object("cat", 0) + object("cow", 1));
    xml("4", "");
  });
  const auto result = both(labelled("photos", "several", "several.csv"));
  EXPECT_EQ(result.targets, 8U);
  EXPECT_EQ(result.unlabelled, 1U);
  EXPECT_EQ(packed("several"),
            (std::map<int, Names>{
                {1, {"cat"}}, {2, {}}, {3, {"cow"}}, {4, {"cat", "dog"}}, {5, {"dog"}}, {6, {"cat", "cow", "dog"}}}));
  auto o = labelled("photos", "voc-set", "voc");
  o.unlabelled = Unlabelled::skip;
  EXPECT_EQ(both(o).left_out.at("without a label"), 3U);
  EXPECT_EQ(packed("voc-set"), (std::map<int, Names>{{2, {"(cat)"}}, {4, {"cat", "dog", "(cow)"}}, {5, {}}}));
}

TEST_F(PackLabels, ListsAndSubsetsTakeSomeImages) {
  photos();
  on_root([&] {
    text("list.txt", "cat/2.png\n3.png\n");
    text("voc.txt", "2 -1\n3  1\n");
    text("classes.txt", "elk\ndog\ncow\ncat\n");
  });
  for (const char* list : {"list.txt", "voc.txt"})
    for (const char* labels : {"", "labels.csv"}) {
      auto o = labelled("photos", std::string("list-") + list + labels, labels);
      if (*labels == '\0') o.label_file = "";
      o.list_file = folder_ / list;
      o.classes_file = folder_ / "classes.txt";
      EXPECT_EQ(both(o).left_out.at("not on the list"), 5U);
      EXPECT_EQ(packed(std::string("list-") + list + labels), (std::map<int, Names>{{2, {"cat"}}, {4, {"dog"}}}));
      EXPECT_EQ(DataSet::open(o.folder, world_).classes(), (Names{"elk", "dog", "cow", "cat"}));
    }
  auto o = options("photos", "half");
  o.subset = {0.5, 0, 1};
  EXPECT_EQ(both(o).accepted, 4U);  // 1 of 2, 1 of 1, 2 of 3
  EXPECT_EQ(both(o = labelled("photos", "half-of-table", "labels.csv")).accepted, 6U);
  o.subset = {0.5, 0, 1};
  o.folder = folder_ / "half-of-table-2";
  both(o);
  EXPECT_EQ(packed("half-of-table-2"), packed("half"));
  o.folder = folder_ / "one";
  o.subset = {1, 1, 7};
  const auto result = both(o);
  EXPECT_EQ(result.accepted, 3U);
  EXPECT_EQ(result.left_out.at("not in the subset"), 3U);
  EXPECT_GT(result.bytes, 0U);
  o.folder = folder_ / "two";
  o.subset.per_class = 2;
  try {
    pack(o, world_);
    FAIL() << "cow has one image";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(e.message().find("class cow has 1 images, wanted 2 of each class"), std::string::npos);
  }
}

TEST_F(PackLabels, WhatDoesNotFitIsRefused) {
  photos();
  on_root([&] {
    photo("photos/old/3.png", 9);
    text("more.csv", "cat/1.png,cat\nelk/1.png,elk\n\nelk/2.png,elk\n");
    text("classes.txt", "cat\ndog\n");
    text("none.csv", "x.png,cat\n");
    text("list.txt", "cat/2.png\n\n9.png\n");
  });
  const auto says = [&](const PackOptions& o, const std::string& wanted) {
    auto text = message(o);
    for (auto at = text.find(folder_.path()); at != std::string::npos; at = text.find(folder_.path()))
      text.erase(at, folder_.path().size() + 1);
    EXPECT_NE(text.find(wanted), std::string::npos) << text;
  };
  says(labelled("photos", "no", "labels.csv"), "labels.csv gives 1 images no label: photos/old/3.png");
  auto keep = labelled("photos", "keep", "labels.csv"), skip = labelled("photos", "skip", "labels.csv");
  keep.unlabelled = Unlabelled::keep;
  skip.unlabelled = Unlabelled::skip;
  EXPECT_EQ(both(keep).unlabelled, 1U);
  EXPECT_EQ(packed("keep").at(9), Names{});
  EXPECT_EQ(both(skip).accepted, 6U);

  auto more = labelled("photos", "more", "more.csv");
  more.unlabelled = Unlabelled::keep;
  says(more, "2 of 3 paths are not in the sources: more.csv:2 (elk/1.png), more.csv:4 (elk/2.png)");
  more.skip_missing = true;
  EXPECT_EQ(both(more).unlabelled, 6U);
  auto none = labelled("photos", "none", "none.csv");
  none.unlabelled = Unlabelled::skip;
  none.skip_missing = true;
  says(none, "none of 8 files of the sources is named by none.csv");

  // 3.png lies in two folders: without a folder the path means both.
  on_root([&] { text("two.csv", "3.png,dog\n2.png,cat\n"); });
  says(labelled("photos", "two", "two.csv"),
       "1 of 2 paths mean more than one file of the sources: two.csv:1 (3.png), one is photos/old/3.png");

  auto fixed = options("photos", "fixed");
  fixed.classes_file = folder_ / "classes.txt";
  says(fixed, "the class \"cow\", the name of a folder, is none of the 2 in classes.txt");
  fixed.label_file = folder_ / "labels.csv";
  says(fixed, "labels.csv:4: the class \"cow\" is none of the 2 in classes.txt");
  auto list = options("photos", "list");
  list.list_file = folder_ / "list.txt";
  says(list, "1 of 2 paths are not in the sources: list.txt:3 (9.png)");
  list.skip_missing = true;
  EXPECT_EQ(both(list).accepted, 1U);
}

}  // namespace
}  // namespace seer::data
