// SPDX-License-Identifier: Apache-2.0
// Label files: what is read from them, and which messages wrong ones have.
#include <gtest/gtest.h>

#include <map>

#include "../../src/data/labels.hpp"
#include "pack_support.hpp"

namespace seer::data {
namespace {

using Rows = std::vector<std::vector<std::string>>;
using Labels = std::map<std::string, std::vector<std::string>>;

class LabelFiles : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& text) {
    test::write_file(folder_ / name, text);
    return folder_ / name;
  }
  /// The classes of each path, by name; those that are ignored in brackets.
  static Labels labels(const LabelTable& table) {
    Labels out;
    for (std::size_t i = 0; i < table.paths.size(); ++i) {
      auto& of = out[std::string(table.paths.path(i))];
      for (const auto c : table.targets.of(i)) of.push_back(table.classes[static_cast<std::size_t>(c)]);
      for (const auto c : table.ignored.of(i)) of.push_back("(" + table.classes[static_cast<std::size_t>(c)] + ")");
    }
    return out;
  }
  Labels csv(const std::string& text) { return labels(read_labels(file("l.csv", text), {})); }
  /// The message, without the folder.
  std::string refusal(const std::string& what, const std::string& classes = "") {
    std::string text = "no error";
    try {
      read_labels(what, classes.empty() ? ClassNames() : ClassNames(classes));
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::file);
      text = e.what();
    }
    for (auto at = text.find(folder_.path()); at != std::string::npos; at = text.find(folder_.path()))
      text.erase(at, folder_.path().size() + 1);
    return text;
  }
  std::string csv_refusal(const std::string& text) { return refusal(file("l.csv", text)); }
  std::string json_refusal(const std::string& text) { return refusal(file("c.json", text)); }

  test::TemporaryFolder folder_;
};

Rows rows(const std::string& text) {
  Rows out;
  std::vector<std::string> fields;
  for (RecordReader reader(text, "f"); reader.next(fields);) out.push_back(fields);
  return out;
}

std::string row_error(const std::string& text) {
  try {
    rows(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Records, QuotesSeparatorsAndLineEnds) {
  EXPECT_EQ(rows("a,b\n\"c,\"\"x\"\"\",\"d\ne\"\r\n"), (Rows{{"a", "b"}, {"c,\"x\"", "d\ne"}}));
  EXPECT_EQ(rows("\n\r\n a , b \r,\r\n\"\",\"\"\n"), (Rows{{"a", "b"}, {"", ""}, {"", ""}}));
  EXPECT_EQ(rows("a\t \tc, d\ne\tf"), (Rows{{"a", "", "c, d"}, {"e", "f"}}));
  EXPECT_EQ(rows("\"a,b\";c\nd;e"), (Rows{{"a,b", "c"}, {"d", "e"}}));
  EXPECT_EQ(rows("  a   b \n\"c d\" e\nf\t g\n"), (Rows{{"a", "b"}, {"c d", "e"}, {"f", "g"}}));
  EXPECT_EQ(rows("a\"b,c\"\n"), (Rows{{"a\"b", "c\""}}));
  EXPECT_EQ(rows("a,"), (Rows{{"a", ""}}));
  EXPECT_EQ(rows(""), Rows{});
  EXPECT_EQ(rows("\n \n\t\n"), Rows{});
  EXPECT_EQ(row_error("a,b\n\nc,\"d\n\n"), "f:3: a quote is not closed");
  EXPECT_EQ(row_error("a,b\r\n\"c\nc\",d\r\n\"e\"f,g\n"), "f:4: text after a closing quote");
  EXPECT_EQ(row_error("a,b\r\"c\rc\",d\r\"e\"f,g\n"), "f:4: text after a closing quote");
}

TEST_F(LabelFiles, TablesOfText) {
  const Labels wanted = {{"/1.jpg", {"cat"}}, {"/sub/2.jpg", {"dog"}}};
  EXPECT_EQ(csv("1.jpg,cat\nsub/2.jpg,dog\n"), wanted);
  EXPECT_EQ(csv("\xEF\xBB\xBF"
                "file,label\r\n1.jpg,cat\r\n./sub//2.jpg,dog"),
            wanted);
  EXPECT_EQ(csv("1.jpg cat\n\nsub/2.jpg   dog\n"), wanted);
  EXPECT_EQ(csv("width\tClass_Name\tImage Path\n7\tcat\t1.jpg\n8\tdog\tsub/2.jpg\n"), wanted);
  EXPECT_EQ(csv("photo,animal\n1.jpg,cat\nsub/2.jpg,dog\n"), wanted);
  EXPECT_EQ(csv("1.jpg,cat\nsub/2.jpg,dog\n1.jpg,cat\n"), wanted);
  EXPECT_EQ(csv("id,breed\n000a,b c\n"), (Labels{{"/000a", {"b c"}}}));
  EXPECT_EQ(csv("ImageID,Source,LabelName,Confidence\na,x,cat,1\na,x,dog,0\na,y,cow,0.5\nb,y,dog,0.0\n"),
            (Labels{{"/a", {"cat", "cow"}}, {"/b", {}}}));
  EXPECT_EQ(csv("\xE7\x8C\xAB.jpg,\xE7\x8C\xAB\n"), (Labels{{"/\xE7\x8C\xAB.jpg", {"\xE7\x8C\xAB"}}}));
  EXPECT_EQ(csv("caf\xE9.jpg,caf\xE9\n"), (Labels{{"/caf\xE9.jpg", {"caf\\xE9"}}}));
}

TEST_F(LabelFiles, SeveralLabels) {
  const Labels wanted = {{"/1.jpg", {"cat", "dog"}}, {"/2.jpg", {}}, {"/3.jpg", {"cow"}}};
  for (const char* text : {"1.jpg,dog;cat;dog\n2.jpg,\n3.jpg,cow\n", "1.jpg,dog|cat\n2.jpg,;\n3.jpg,| cow |\n",
                           "1.jpg,cat,dog\n2.jpg\n3.jpg,cow,\n", "1.jpg;cat;dog\n2.jpg;\n3.jpg;cow\n",
                           "1.jpg,cat\n2.jpg,\n1.jpg,dog\n3.jpg,cow\n"}) {
    EXPECT_EQ(csv(text), wanted) << text;
    EXPECT_TRUE(read_labels(folder_ / "l.csv", {}).several);
  }
  EXPECT_EQ(read_labels(folder_ / "l.csv", {}).united, 1U);
  EXPECT_FALSE(read_labels(file("l.csv", "1.jpg,cat\n2.jpg,\n"), {}).several);
}

TEST_F(LabelFiles, ColumnsOfFlagsAreClasses) {
  const Labels wanted = {{"/1.jpg", {"is_cat"}}, {"/2.jpg", {"is_cat", "is_dog"}}, {"/3.jpg", {}}};
  for (const char* text : {"image,is_cat,is_dog\n1.jpg,1,0\n2.jpg,1,1\n3.jpg,0,0\n",
                           ",image,is_cat,is_dog\n0,1.jpg,1.0,0.0\n1,2.jpg,1.0,1.0\n1,3.jpg,0.0,0.0\n",
                           "name\tis_cat\tis_dog\n1.jpg\tTrue\tFalse\n2.jpg\ttrue\ttrue\n3.jpg\tfalse\tfalse\n",
                           "image is_cat is_dog\n1.jpg  1 -1\n2.jpg  1  1\n3.jpg -1 -1\n"}) {
    EXPECT_EQ(csv(text), wanted) << text;
    EXPECT_TRUE(read_labels(folder_ / "l.csv", {}).several);
  }
  EXPECT_EQ(csv("photo,cat,dog\n0001,1,0\n0002,0,1\n"), (Labels{{"/0001", {"cat"}}, {"/0002", {"dog"}}}));
  EXPECT_FALSE(read_labels(folder_ / "l.csv", {}).several);
  EXPECT_EQ(read_labels(file("l.csv", "image,b,a\n1.jpg,1,0\n2.jpg,1,0\n"), {}).classes,
            (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(csv("image,a,b\n1.jpg,1,0\n2.jpg,1,2\n"), (Labels{{"/1.jpg", {"0", "1"}}, {"/2.jpg", {"1", "2"}}}));
  EXPECT_EQ(csv_refusal("1.jpg,1,0\n2.jpg,0,1\n"), "l.csv: columns of 0 and 1, but no header that names their classes");
  EXPECT_EQ(csv_refusal("image,a,b\n1.jpg,1,0\n2.jpg,-1,1\n"),
            "l.csv: columns of -1, 0 and 1: -1 may mean unknown or absent");
  EXPECT_EQ(csv_refusal("image,a,b\n1.jpg,0,0\n"), "l.csv: no image has a class: all of its columns are 0");
  EXPECT_EQ(csv_refusal("image,label\n"), "l.csv: has a header, but no line of an image");
}

TEST_F(LabelFiles, NumbersAreSortedAsNumbersAndNamesAsText) {
  EXPECT_EQ(read_labels(file("l.csv", "a.jpg 10\nb.jpg 9\nc.jpg 0\n"), {}).classes,
            (std::vector<std::string>{"0", "9", "10"}));
  EXPECT_EQ(read_labels(file("l.csv", "a.jpg 10\nb.jpg 9\nc.jpg x\n"), {}).classes,
            (std::vector<std::string>{"10", "9", "x"}));
}

TEST_F(LabelFiles, AFileFixesTheClasses) {
  const auto places = file("places.txt", "\xEF\xBB\xBF/a/abbey 0\r\n/b/bar lounge 2\r\n\r\n/a/alley 1\r\n");
  const auto table = read_labels(file("l.txt", "a/1.jpg 2\na/2.jpg 0\na/3.jpg /a/alley\n"), ClassNames(places));
  EXPECT_EQ(table.classes, (std::vector<std::string>{"/a/abbey", "/a/alley", "/b/bar lounge"}));
  EXPECT_EQ(labels(table),
            (Labels{{"/a/1.jpg", {"/b/bar lounge"}}, {"/a/2.jpg", {"/a/abbey"}}, {"/a/3.jpg", {"/a/alley"}}}));
  const auto names = file("names.txt", "polar bear\n  cat|dog  \nant\n");
  EXPECT_EQ(labels(read_labels(file("l.csv", "1.jpg,cat|dog\n2.jpg,ant|polar bear\n"), ClassNames(names))),
            (Labels{{"/1.jpg", {"cat|dog"}}, {"/2.jpg", {"polar bear", "ant"}}}));
  EXPECT_EQ(refusal(file("l.csv", "1.jpg,ant\n\n2.jpg,\"ant|elk\"\n"), names),
            "l.csv:3: the class \"elk\" is none of the 3 in names.txt");
  EXPECT_EQ(refusal(file("l.csv", "1.jpg 3\n"), places), "l.csv:1: the class \"3\" is none of the 3 in places.txt");
  EXPECT_EQ(refusal("x", file("c.txt", "a\nb\na\n")), "c.txt: names the class \"a\" twice");
  EXPECT_EQ(refusal("x", file("c.txt", "a 0\nb 2\n")),
            "c.txt: class \"b\" has the number 2, wanted each number from 0 to 1 once");
  EXPECT_EQ(refusal("x", file("c.txt", "a 0\nb 0\n")),
            "c.txt: class \"b\" has the number 0, wanted each number from 0 to 1 once");
  EXPECT_EQ(refusal("x", file("c.txt", "\n\n")), "c.txt: names no class");
}

TEST_F(LabelFiles, WrongTablesAreRefused) {
  EXPECT_EQ(csv_refusal(""), "l.csv: holds no lines");
  EXPECT_EQ(csv_refusal("\r\n\r\n"), "l.csv: holds no lines");
  EXPECT_EQ(csv_refusal("1.jpg\n2.jpg\n"),
            "l.csv: names no class: found 1 field on its first line, wanted a file and its label");
  EXPECT_EQ(csv_refusal("file,label\n1.jpg,a,b\n"), "l.csv:2: has 3 fields, the header has 2");
  EXPECT_EQ(csv_refusal("file,label\n1.jpg,a\n\n2.jpg\n"), "l.csv:4: has 1 fields, the header has 2");
  EXPECT_EQ(csv_refusal("1.jpg,a\n,b\n"), "l.csv:2: \"\" is not the path of a file");
  EXPECT_EQ(csv_refusal("1.jpg,a\n2.jpg,\"b\n"), "l.csv:2: a quote is not closed");
  EXPECT_EQ(csv_refusal(std::string("1.jpg,a\n2.jpg,\0\n", 16)), "l.csv:2: found a zero byte");
  EXPECT_NE(csv_refusal(std::string("\xFF\xFE"
                                    "1\0,\0",
                                    6))
                .find("UTF-16"),
            std::string::npos);
  EXPECT_EQ(refusal(folder_ / "none.csv"), "none.csv: cannot be read: No such file or directory");
}

TEST_F(LabelFiles, ListsOfPaths) {
  const auto paths = [&](const std::string& text) {
    std::vector<std::string> out;
    const auto list = read_path_list(file("list.txt", text));
    for (std::size_t i = 0; i < list.paths.size(); ++i) out.emplace_back(list.paths.path(i));
    return out;
  };
  EXPECT_EQ(paths("\xEF\xBB\xBF"
                  "b 1.jpg\r\n\r\n  a.jpg \r\nb 1.jpg\n#c.jpg"),
            (std::vector<std::string>{"/b 1.jpg", "/  a.jpg", "/#c.jpg"}));
  EXPECT_EQ(paths("000012 -1\n000017  1\n000023 0\n"), (std::vector<std::string>{"/000012", "/000023", "/000017"}));
  EXPECT_EQ(paths("my photo 1\nother 2\n"), (std::vector<std::string>{"/my photo 1", "/other 2"}));
  EXPECT_THROW(read_path_list(file("list.txt", "\n \n")), Error);
}

TEST(Paths, TheBestFitIsFound) {
  PathIndex index;
  for (const char* path :
       {"cat/1.jpg", "1.jpg", "x/dog/2.jpg", "x/cow/2.jpg", "deep/x/3.jpg", "y/4.jpg", "/abs/y/5.jpg"})
    index.add(path, 0, "p");
  index.sort();
  using Fit = PathIndex::Fit;
  const auto found = [&](const std::string& before, const std::string& inner) {
    const auto f = index.find(before + inner, before.size());
    return std::pair(f.fit == Fit::none ? "" : std::string(index.path(f.path)), f.fit);
  };
  EXPECT_EQ(found("/src", "/cat/1.jpg"), std::pair(std::string("/cat/1.jpg"), Fit::ends_file));
  EXPECT_EQ(found("/src", "/dog/1.jpg"), std::pair(std::string("/1.jpg"), Fit::ends_file));
  EXPECT_EQ(found("/src/cat", "/1.jpg"), std::pair(std::string("/cat/1.jpg"), Fit::ends_file));
  EXPECT_EQ(found("/src", "/dog/2.jpg"), std::pair(std::string("/x/dog/2.jpg"), Fit::ends_with_file));
  EXPECT_EQ(found("/src", "/z/dog/2.jpg"), std::pair(std::string("/x/dog/2.jpg"), Fit::same_name));
  EXPECT_EQ(found("/src", "/elk/2.jpg"), std::pair(std::string(), Fit::none));
  EXPECT_EQ(found("/src", "/2.jpg"), std::pair(std::string(), Fit::none));
  EXPECT_EQ(found("", "/3.jpg"), std::pair(std::string("/deep/x/3.jpg"), Fit::ends_with_file));
  EXPECT_EQ(found("/src", "/z/4.jpg"), std::pair(std::string("/y/4.jpg"), Fit::same_name));
  EXPECT_EQ(found("/abs", "/y/5.jpg"), std::pair(std::string("/abs/y/5.jpg"), Fit::ends_file));
  EXPECT_EQ(found("/src", "/11.jpg").second, Fit::none);
  EXPECT_EQ(found("/src", "/1.png").second, Fit::none);
  EXPECT_EQ(PathIndex().find("/a/1.jpg", 0).fit, Fit::none);
}

TEST(Paths, AgreeWithASearchOfAllPathsAndIgnoreEndingsIfNoneHasOne) {
  PathIndex index;
  std::vector<std::string> paths;
  for (int i = 0; i < 500; ++i)
    paths.push_back("/" + std::to_string(i % 7) + "/" + std::to_string(i % 83) + "/" + std::to_string(i % 11));
  for (const auto& path : paths) index.add(path, 0, "p");
  index.sort();
  for (int i = 0; i < 700; ++i) {
    const auto file = "/a/" + std::to_string(i % 9) + "/" + std::to_string(i % 89) + "/" + std::to_string(i % 13);
    const auto found = index.find(file + ".JPG", 2);
    bool wanted = false;
    for (const auto& path : paths) wanted |= file.ends_with(path);
    EXPECT_EQ(found.fit == PathIndex::Fit::ends_file, wanted) << file;
    if (wanted) {
      EXPECT_TRUE(file.ends_with(index.path(found.path)));
    }
  }
}

constexpr const char* kCoco = R"({"info": {"images": [{"id": "no"}]}, "annotations": [
 {"id": "x", "image_id": 18446744073709551615, "category_id": 90, "segmentation": [[1, 2.5], {"id": -7}], "bbox": [0, 1]},
 {"image_id": 3, "category_id": 7, "iscrowd": 1}, {"image_id": 3, "category_id": 7},
 {"image_id": 18446744073709551615, "category_id": 7}], "licenses": [{"id": -1, "name": 3}],
 "images": [{"file_name": "b/2.jpg", "id": 3}, {"id": 18446744073709551615, "file_name": "1.jpg", "height": 2e3},
  {"id": 4, "file_name": "3.jpg"}], "categories": [{"id": 90, "name": "ape"}, {"id": 7, "name": "zebra"}, {"id": 8, "name": "yak"}]})";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST_F(LabelFiles, CocoInAnyOrderWithHugeIds) {
  const auto table = read_labels(file("c.json", kCoco), {});
  EXPECT_EQ(table.classes, (std::vector<std::string>{"zebra", "yak", "ape"}));  // in the order of the ids
  EXPECT_EQ(labels(table), (Labels{{"/1.jpg", {"zebra", "ape"}}, {"/b/2.jpg", {"zebra"}}, {"/3.jpg", {}}}));
  EXPECT_TRUE(table.several);
  EXPECT_EQ(table.place(0).substr(folder_.path().size() + 1), "c.json, images[1] (1.jpg)");
  const auto names = file("names.txt", "ape\nzebra\nyak\ncow\n");
  EXPECT_EQ(labels(read_labels("coco:" + (folder_ / "c.json"), ClassNames(names)))["/1.jpg"],
            (std::vector<std::string>{"ape", "zebra"}));
}

TEST_F(LabelFiles, InatHasOneCategory) {
  const char* inat =
      R"({"images": [{"id": 0, "file_name": "t/a.jpg"}, {"id": 1, "file_name": "t/b.jpg"}],
          "annotations": [{"id": 0, "image_id": 0, "category_id": 1}, {"id": 1, "image_id": 1, "category_id": 0}],
          "categories": [{"id": 0, "name": "Zea mays"}, {"id": 1, "name": "Apis"}]})";
  for (const char* form : {"inat:", "coco:", ""}) {
    const auto table = read_labels(form + file("i.json", inat), {});
    EXPECT_EQ(labels(table), (Labels{{"/t/a.jpg", {"Apis"}}, {"/t/b.jpg", {"Zea mays"}}}));
    EXPECT_FALSE(table.several);
  }
  EXPECT_EQ(refusal("inat:" + file("c.json", kCoco)), "c.json: annotations[3] gives images[1] a second category");
}

TEST_F(LabelFiles, WrongJsonIsRefused) {
  EXPECT_NE(json_refusal(R"({"images": [)").find("c.json: not JSON: "), std::string::npos);
  EXPECT_NE(json_refusal(R"({"images": []} x)").find("c.json: not JSON: "), std::string::npos);
  EXPECT_EQ(json_refusal("{}"), "c.json: has no images, wanted COCO's images, annotations and categories");
  EXPECT_EQ(json_refusal(R"({"images": {"id": 3}, "x": [[[]]]})"),
            "c.json: has no images, wanted COCO's images, annotations and categories");
  const auto with = [&](const std::string& from, const std::string& to) {
    return json_refusal(replaced(kCoco, from, to));
  };
  EXPECT_EQ(with("\"id\": 3}", "\"id\": 4}"), "c.json: images[0] and images[2] have the same id 4");
  EXPECT_EQ(with("\"id\": 90,", "\"id\": 8,"), "c.json: categories[0] and categories[2] have the same id 8");
  EXPECT_EQ(with("\"image_id\": 3,", "\"image_id\": 2,"),
            "c.json: annotations[1] names the id 2, which none of images has");
  EXPECT_EQ(with("\"image_id\": 18446744073709551615, \"category_id\": 7", "\"image_id\": 5, \"category_id\": 7"),
            "c.json: annotations[3] names the id 5, which none of images has");
  EXPECT_EQ(with("\"category_id\": 7,", "\"category_id\": 6,"),
            "c.json: annotations[1] names the id 6, which none of categories has");
  EXPECT_EQ(with("\"category_id\": 7,", "\"category\": 7,"), "c.json: annotations[1] has no category_id");
  EXPECT_EQ(with("\"file_name\": \"3.jpg\"", "\"name\": \"3.jpg\""), "c.json: images[2] has no file_name");
  EXPECT_EQ(with("\"id\": 4", "\"id\": -4"), "c.json: images[2] has the id -4, wanted an integer from 0 to 2^64 - 1");
  EXPECT_EQ(with("\"id\": 4", "\"id\": \"4\""),
            "c.json: images[2] has the id \"4\", wanted an integer from 0 to 2^64 - 1");
  EXPECT_EQ(with("\"id\": 4", "\"id\": 18446744073709551616"),
            "c.json: images[2] has the id 18446744073709551616, wanted an integer from 0 to 2^64 - 1");
  EXPECT_EQ(with("\"yak\"", "\"ape\""), "c.json: categories[0] has the name \"ape\", which another category has, too");
  EXPECT_EQ(refusal(folder_ / "c.json", file("n.txt", "ape\nyak\n")),
            "c.json: categories[1]: the class \"zebra\" is none of the 2 in n.txt");
}

TEST_F(LabelFiles, VocWithDifficultObjects) {
  const auto annotation = [&](const std::string& name, const std::string& content) {
    file("voc/Annotations/" + name + ".xml",
         "<annotation><filename>" + name + ".jpg</filename>" + content + "</annotation>");
  };
  const auto object = [](const std::string& name, int difficult) {
    return "<object><name>" + name + "</name><difficult>" + std::to_string(difficult) +
           "</difficult><part><name>head</name></part></object>";
  };
  annotation("000001", object("person", 0) + object("dog", 1) + object("person", 1));
  annotation("000002", object("dog", 0) + object("cat", 1) + object("cat", 1));
  annotation("000003", "");
  for (const char* what : {"", "voc:"}) {
    const auto table = read_labels(what + (folder_ / "voc"), {});
    EXPECT_EQ(table.classes, (std::vector<std::string>{"cat", "dog", "person"}));
    EXPECT_EQ(labels(table),
              (Labels{{"/000001.jpg", {"person", "(dog)"}}, {"/000002.jpg", {"dog", "(cat)"}}, {"/000003.jpg", {}}}));
    EXPECT_TRUE(table.several);
  }
  EXPECT_EQ(refusal(folder_ / "voc/Annotations", file("n.txt", "dog\nperson\n")),
            "voc/Annotations/000002.xml: the class \"cat\" is none of the 2 in n.txt");
  annotation("000004", "<object><difficult>0</difficult></object>");
  EXPECT_EQ(refusal(folder_ / "voc"), "voc/Annotations/000004.xml: an <object> has no <name>");
  file("voc/Annotations/000004.xml", "<annotation><object>");
  EXPECT_NE(refusal(folder_ / "voc").find("voc/Annotations/000004.xml: not XML: "), std::string::npos);
  file("voc/Annotations/000004.xml", "<html/>");
  EXPECT_EQ(refusal(folder_ / "voc"), "voc/Annotations/000004.xml: has no <annotation>");
  EXPECT_NE(refusal("voc:" + (folder_ / "none")).find("none: No such file"), std::string::npos);
  file("empty/x.txt", "");
  EXPECT_EQ(refusal(folder_ / "empty"), "empty: the folder holds no *.xml");
}

}  // namespace
}  // namespace seer::data
