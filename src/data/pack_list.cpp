// SPDX-License-Identifier: Apache-2.0
// Reads a text file with one path per line.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "pack_names.hpp"
#include "pack_source.hpp"
#include "seer/base/error.hpp"
#include "seer/base/home.hpp"
#include "seer/base/utf8.hpp"

namespace seer::data {

SourceList::Source read_list(const std::string& path) {
  std::stringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  std::string text = content.str();
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty()) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, wrong));
  }
  SourceList::Source source{
      SourceList::Kind::list, path, std::filesystem::path(path).parent_path().string(), "", "", 0};
  if (text.find('\0') != std::string::npos) {
    throw Error(ExitCode::file, fmt::format("{}: found a zero byte", path),
                "a list is UTF-8 text with one path a line");
  }
  // "Inside" a list means below the longest folder that all its paths have in common.
  std::vector<std::string> common;
  bool first = true;
  std::replace(text.begin(), text.end(), '\r', '\n');
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    line.resize(line.find_last_not_of(" \t") + 1);
    remove_byte_order_mark(line);  // concatenated lists have one in the middle
    if (line.empty()) continue;
    if (line.starts_with("~/")) line = expand_home(line).value_or(line);
    add_file(source.files, line);
    auto parts = parts_of(line);
    if (!parts.empty()) parts.pop_back();
    if (first) common.assign(parts.begin(), parts.end());
    first = false;
    const auto end = std::mismatch(common.begin(), common.end(), parts.begin(), parts.end()).first;
    common.erase(end, common.end());
  }
  source.above = common.size();
  return source;
}

}  // namespace seer::data
