// SPDX-License-Identifier: Apache-2.0
// Label files of VOC: a folder of XML files, one for each image.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <pugixml.hpp>

#include "labels.hpp"
#include "pack_parts.hpp"
#include "seer/base/names.hpp"

namespace seer::data {

LabelTable read_label_xml(const std::string& given, ClassNames classes) {
  namespace fs = std::filesystem;
  std::error_code error;
  const auto folder =
      fs::is_directory(fs::path(given) / "Annotations", error) ? (fs::path(given) / "Annotations").string() : given;
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".xml" && hidden_kind(entry.path().filename().string()).empty())
      names.push_back(entry.path().stem().string());
  if (error) fail(fmt::format("{}: {}", folder, error.message()), "give VOC's folder of annotations");
  if (names.empty())
    fail(fmt::format("{}: the folder holds no *.xml", folder),
         "give VOC's folder of annotations, voc:VOC2007/Annotations");
  std::ranges::sort(names);
  LabelBuilder builder(folder, LabelTable::Unit::xml_file, std::move(classes));
  std::vector<std::int32_t> clear, difficult;
  pugi::xml_document file;
  for (const auto& name : names) {
    const auto path = fmt::format("{}/{}.xml", folder, name);
    const auto result = file.load_file(path.c_str(), pugi::parse_default);
    if (!result) fail(fmt::format("{}: not XML: {} at byte {}", path, result.description(), result.offset));
    const auto image = file.child("annotation");
    if (!image) fail(fmt::format("{}: has no <annotation>", path), "give a folder of annotations as VOC has them");
    clear.clear();
    difficult.clear();
    for (const auto object : image.children("object")) {
      const std::string text = object.child("name").text().get();
      if (text.empty()) fail(fmt::format("{}: an <object> has no <name>", path));
      const bool hard = object.child("difficult").text().as_int() != 0;
      (hard ? difficult : clear).push_back(builder.classes().number_of(utf8_name(text), path));
    }
    std::erase_if(difficult, [&](std::int32_t c) { return std::ranges::find(clear, c) != clear.end(); });
    const std::string photo = image.child("filename").text().get();
    const auto ending = is_image_name(photo) ? photo.substr(photo.rfind('.')) : std::string(".jpg");
    builder.add(name + ending, 0, path, clear, difficult);
  }
  if (builder.classes().names().empty()) fail(fmt::format("{}: no file names an object", folder));
  auto table = builder.finish(true);
  table.several = true;
  return table;
}

}  // namespace seer::data
