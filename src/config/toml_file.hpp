// SPDX-License-Identifier: Apache-2.0
// Private to config: reads the TOML files that people write.
#pragma once

#include <fmt/format.h>

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "seer/base/error.hpp"
#include "seer/base/names.hpp"

namespace seer::config {

/// Nothing if the file cannot be read. A folder can be opened, but not read.
inline std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || (file.peek(), file.bad())) return std::nullopt;
  file.clear();
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Error(input), which begins with "NAME:" or "NAME:LINE:", for text that is not TOML in UTF-8.
inline toml::table parse_toml(std::string text, const std::string& name) {
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty())
    throw Error(ExitCode::input, name + ": " + wrong);
  try {
    return toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    throw Error(ExitCode::input, fmt::format("{}:{}: not TOML: {}", name, e.source().begin.line, e.description()));
  }
}

}  // namespace seer::config
