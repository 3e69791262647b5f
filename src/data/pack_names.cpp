// SPDX-License-Identifier: Apache-2.0
#include "pack_names.hpp"

#include <algorithm>
#include <cctype>

namespace seer::data {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_one_of(const std::string& text, std::initializer_list<const char*> all) {
  return std::any_of(all.begin(), all.end(), [&](const char* each) { return text == each; });
}

}  // namespace

std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  if (path.starts_with('/')) parts.push_back(path.substr(0, 1));
  for (std::size_t at = 0; at < path.size();) {
    const auto end = std::min(path.find('/', at), path.size());
    const auto part = path.substr(at, end - at);
    if (!part.empty() && part != ".") parts.push_back(part);
    at = end + 1;
  }
  return parts;
}

std::string_view archive_stem(std::string_view name) {
  name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
  const std::string small = lower(name);
  for (const char* end : {".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"}) {
    if (small.ends_with(end)) return name.substr(0, name.size() - std::string_view(end).size());
  }
  return {};
}

std::string hidden_kind(std::string_view part) {
  if (part == "." || part == "..") return "";
  if (part.starts_with("._")) return "._*";  // macOS: extra data of the file whose name lacks these two characters
  if (part.starts_with('.')) return std::string(part);
  // Folders of macOS, Synology, QNAP, NetApp, Windows, ext file systems and Python.
  const bool system =
      is_one_of(lower(part), {"__macosx", "@eadir", "@__thumb", "#recycle", "@recycle", "#snapshot", "~snapshot",
                              "@recently-snapshot", "__pycache__", "$recycle.bin", "recycler",
                              "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "lost+found"});
  return system ? std::string(part) : "";
}

bool is_image_name(std::string_view name) {
  return is_one_of(lower(name.substr(std::min(name.rfind('.'), name.size()))), {".jpg", ".jpeg", ".png", ".webp"});
}

bool is_split_name(std::string_view folder) {
  return is_one_of(lower(folder), {"train", "training", "test", "testing", "val", "valid", "validation"});
}

}  // namespace seer::data
