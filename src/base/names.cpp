// SPDX-License-Identifier: Apache-2.0
#include "seer/base/names.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <utility>

namespace seer {
namespace {

// Length of the UTF-8 character at `at` in bytes (RFC 3629: no overlong forms, no surrogates); 0 if none begins there.
std::size_t character_bytes(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  const bool overlong_or_surrogate = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) ||
                                     (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  if (first < 0xC2 || first > 0xF4 || overlong_or_surrogate) return 0;
  const std::size_t bytes = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < bytes; ++i)
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
  return bytes;
}

bool reads_as_escape(std::string_view text) {
  const auto hex = [&](std::size_t i) { return std::isxdigit(static_cast<unsigned char>(text[i])) != 0; };
  return text.size() >= 4 && text[0] == '\\' && text[1] == 'x' && hex(2) && hex(3);
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const auto length = character_bytes(bytes, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string utf8_name(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto length = character_bytes(bytes, at);
    if (length == 0 || reads_as_escape(bytes.substr(at))) {
      out += fmt::format("\\x{:02X}", static_cast<unsigned char>(bytes[at++]));
    } else {
      out += bytes.substr(at, length);
      at += length;
    }
  }
  return out;
}

std::string remove_byte_order_mark(std::string& text) {
  using namespace std::string_view_literals;
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  // UTF-32 first: its little-endian mark begins with that of UTF-16.
  constexpr std::pair<std::string_view, const char*> kMarks[] = {
      {"\xFF\xFE\0\0"sv, "UTF-32"}, {"\0\0\xFE\xFF"sv, "UTF-32"}, {"\xFF\xFE"sv, "UTF-16"}, {"\xFE\xFF"sv, "UTF-16"}};
  for (const auto& [mark, name] : kMarks)
    if (text.starts_with(mark))
      return fmt::format("found {} text, wanted UTF-8: iconv -f {} -t UTF-8 FILE > NEW", name, name);
  return "";
}

std::optional<std::string> expand_home(const std::string& path) {
  if (!path.starts_with('~')) return path;
  const auto end = std::min(path.find('/'), path.size());
  const auto user = path.substr(1, end - 1);
  const char* home = user.empty() ? std::getenv("HOME") : nullptr;
  if (home == nullptr || *home == 0) {
    const passwd* entry = user.empty() ? getpwuid(getuid()) : getpwnam(user.c_str());
    if (entry == nullptr) return std::nullopt;
    home = entry->pw_dir;
  }
  return home + path.substr(end);
}

std::string few_names(std::span<const std::string> names, std::size_t shown) {
  const auto text = fmt::format("{}", fmt::join(names.first(std::min(shown, names.size())), ", "));
  return names.size() > shown ? fmt::format("{} and {} more", text, names.size() - shown) : text;
}

bool names_variable(const std::string& path) {
  return std::ranges::adjacent_find(path, [](char dollar, char next) {
           return dollar == '$' && (next == '{' || next == '_' || std::isalpha(static_cast<unsigned char>(next)) != 0);
         }) != path.end();
}

}  // namespace seer
