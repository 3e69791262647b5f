// SPDX-License-Identifier: Apache-2.0
// Label files in COCO's JSON, which iNaturalist uses, too. Read as a stream: outlines and masks are passed over, so
// that the memory does not depend on them.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "labels.hpp"
#include "pack_parts.hpp"
#include "seer/base/names.hpp"

namespace seer::data {
namespace {

using nlohmann::json;

struct Image {
  std::uint64_t id = 0;
  std::uint64_t name = 0;    // place in `names`
  std::uint32_t number = 0;  // of the array
};
struct Annotation {
  std::uint64_t image = 0, category = 0;
  std::uint32_t number = 0;
};
struct Category {
  std::uint64_t id = 0;
  std::string name;
  std::uint32_t number = 0;
};

/// Takes the parser's events. Keeps what stands in objects of the arrays images, annotations and categories.
class CocoReader : public nlohmann::json_sax<json> {
 public:
  explicit CocoReader(std::string file) : file_(std::move(file)) {}

  std::vector<Image> images;
  std::vector<Annotation> annotations;
  std::vector<Category> categories;
  std::string names;  // of images, each followed by '\0'

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool number_integer(number_integer_t value) override { return other(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return other(text); }
  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 3 || section_.empty()) return true;
    if (key_ == "id") id_ = value;
    if (key_ == "image_id") image_ = value;
    if (key_ == "category_id") category_ = value;
    if (key_ == "name") name_ = std::to_string(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ != 3 || section_.empty()) return true;
    if ((section_ == "images" && key_ == "file_name") || (section_ == "categories" && key_ == "name"))
      name_ = value;
    else
      other('"' + value + '"');
    return true;
  }
  bool start_object(std::size_t) override {
    if (++depth_ == 3) {
      id_.reset(), image_.reset(), category_.reset(), name_.reset();
    }
    return true;
  }
  bool end_object() override {
    if (depth_-- == 3) keep();
    return true;
  }
  bool start_array(std::size_t) override {
    if (++depth_ == 2) item_ = 0;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) section_ = value == "images" || value == "annotations" || value == "categories" ? value : "";
    if (depth_ == 3) key_ = value;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& e) override {
    fail(fmt::format("{}: not JSON: {}", file_, e.what()));
  }

 private:
  std::string place() const { return fmt::format("{}: {}[{}]", file_, section_, item_); }

  /// Any other number or text: refused where a number is wanted.
  bool other(const std::string& found) {
    const bool is_number = key_ == "id" || (section_ == "annotations" && (key_ == "image_id" || key_ == "category_id"));
    if (depth_ == 3 && !section_.empty() && is_number && !(section_ == "annotations" && key_ == "id"))
      fail(fmt::format("{} has the {} {}, wanted an integer from 0 to 2^64 - 1", place(), key_, found));
    return true;
  }

  template <class T>
  const T& wanted(const std::optional<T>& value, const char* name) const {
    if (!value) fail(fmt::format("{} has no {}", place(), name));
    return *value;
  }

  void keep() {
    if (section_ == "images") {
      images.push_back({wanted(id_, "id"), names.size(), item_});
      names += wanted(name_, "file_name") + '\0';
    } else if (section_ == "annotations") {
      annotations.push_back({wanted(image_, "image_id"), wanted(category_, "category_id"), item_});
    } else if (section_ == "categories") {
      const auto id = wanted(id_, "id");
      categories.push_back({id, utf8_name(name_.value_or(std::to_string(id))), item_});
    }
    ++item_;
  }

  std::string file_, section_, key_;
  int depth_ = 0;
  std::uint32_t item_ = 0;
  std::optional<std::uint64_t> id_, image_, category_;
  std::optional<std::string> name_;
};

/// Sorts by id. Error(file) if two are equal.
template <class T>
void sort_by_id(std::vector<T>& all, const std::string& file, const char* section) {
  std::ranges::stable_sort(all, {}, &T::id);
  const auto twice = std::ranges::adjacent_find(all, {}, &T::id);
  if (twice != all.end())
    fail(fmt::format("{}: {}[{}] and {}[{}] have the same id {}", file, section, twice->number, section,
                     std::next(twice)->number, twice->id));
}

template <class T>
const T& find(const std::vector<T>& all, std::uint64_t id, const std::string& file, const Annotation& of,
              const char* section) {
  const auto at = std::ranges::lower_bound(all, id, {}, &T::id);
  if (at == all.end() || at->id != id)
    fail(fmt::format("{}: annotations[{}] names the id {}, which none of {} has", file, of.number, id, section));
  return *at;
}

}  // namespace

LabelTable read_label_json(const std::string& path, ClassNames classes, Categories wanted) {
  std::ifstream in(path, std::ios::binary);
  if (!in)
    fail(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)), "correct the path of the label file");
  CocoReader file(path);
  json::sax_parse(in, &file);
  for (const auto& [count, section] : {std::pair(file.images.size(), "images"),
                                       {file.annotations.size(), "annotations"},
                                       {file.categories.size(), "categories"}})
    if (count == 0)
      fail(fmt::format("{}: has no {}, wanted COCO's images, annotations and categories", path, section),
           "files of test sets have no labels: pack them with --labels none");
  sort_by_id(file.images, path, "images");
  sort_by_id(file.categories, path, "categories");
  const bool fixed = classes.fixed();
  LabelBuilder builder(path, LabelTable::Unit::json_image, std::move(classes));
  std::vector<std::int32_t> class_of;
  for (const auto& c : file.categories) {
    const auto before = builder.classes().names().size();
    class_of.push_back(builder.classes().number_of(c.name, fmt::format("{}: categories[{}]", path, c.number)));
    if (!fixed && builder.classes().names().size() == before)
      fail(fmt::format("{}: categories[{}] has the name \"{}\", which another category has, too", path, c.number,
                       c.name),
           "give every category its own name");
  }
  std::ranges::stable_sort(file.annotations, {}, &Annotation::image);
  std::vector<std::int32_t> of_image;
  auto next = file.annotations.begin();
  for (const auto& image : file.images) {
    of_image.clear();
    for (; next != file.annotations.end() && next->image <= image.id; ++next) {
      find(file.images, next->image, path, *next, "images");
      const auto& category = find(file.categories, next->category, path, *next, "categories");
      of_image.push_back(class_of[static_cast<std::size_t>(&category - file.categories.data())]);
      if (wanted == Categories::one && of_image.back() != of_image.front())
        fail(fmt::format("{}: annotations[{}] gives images[{}] a second category", path, next->number, image.number),
             "read it as coco:FILE: images may then have several");
    }
    const std::string name = file.names.c_str() + image.name;
    builder.add(name, image.number, fmt::format("{}: images[{}]", path, image.number), of_image);
  }
  if (next != file.annotations.end()) find(file.images, next->image, path, *next, "images");
  auto table = builder.finish(false);
  // One category of every image: labels. COCO also has images of several and of none.
  if (wanted == Categories::any)
    for (std::size_t i = 0; i < table.paths.size(); ++i) table.several |= table.targets.of(i).size() != 1;
  return table;
}

}  // namespace seer::data
