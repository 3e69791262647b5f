// SPDX-License-Identifier: Apache-2.0
// JSON texts that end in their own checksum: the manifests of checkpoints and of local copies.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::checkpoint {

// Many JSON readers turn numbers into doubles, so 64-bit checksums are written as 16 hexadecimal digits.
inline std::string hex(std::uint64_t value) {
  return fmt::format("{:016x}", value);
}

inline std::uint64_t from_hex(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::invalid_argument("the checksum is not a number");
  return value;
}

/// The text of a tree with the checksum of its text without this key, without spaces and with sorted keys. `indent`: as
/// in json::dump().
inline std::string sealed(nlohmann::json tree, int indent) {
  tree["xxh3"] = hex(checksum(tree.dump()));
  return tree.dump(indent) + "\n";
}

/// Checks checksum, format and version, and returns what `parse` makes of the tree. Error(file) names the first problem
/// of both; `path` appears in the message.
template <class Parse>
auto parse_sealed(const std::string& text, const std::string& path, const std::string& format, Parse parse) {
  try {
    auto tree = nlohmann::json::parse(text);
    const auto own = from_hex(tree.at("xxh3"));
    tree.erase("xxh3");
    if (checksum(tree.dump()) != own) throw std::invalid_argument("its checksum is wrong");
    if (tree.at("format") != format)
      throw std::invalid_argument(fmt::format("its format is {}, wanted \"{}\"", tree["format"].dump(), format));
    if (tree.at("version") != 1) throw std::invalid_argument("its version is " + tree["version"].dump() + ", wanted 1");
    return parse(tree);
  } catch (const std::exception& e) {
    throw Error(ExitCode::file, fmt::format("{} cannot be used: {}", path, e.what()));
  }
}

/// The text of such a file. Error(file) if it is missing or absurdly large.
inline std::string read_sealed(const std::string& path) {
  constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 30;
  std::error_code ec;
  const auto bytes = std::filesystem::file_size(path, ec);
  if (ec) throw Error(ExitCode::file, fmt::format("{}: {}; without it this is no complete checkpoint", path, ec.message()));
  if (bytes > kMaxBytes) throw Error(ExitCode::file, fmt::format("{} has {} bytes: not a manifest", path, bytes));
  std::string text(bytes, '\0');
  RawFile(path).read(0, text.data(), bytes);
  return text;
}

}  // namespace seer::checkpoint
