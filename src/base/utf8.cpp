// SPDX-License-Identifier: Apache-2.0
#include "seer/base/utf8.hpp"

#include <fmt/format.h>

#include <cctype>
#include <utility>

namespace seer {
namespace {

// Length of the UTF-8 character at `at` in bytes (RFC 3629: no overlong forms, no surrogates); 0 if none begins there.
std::size_t character_bytes(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> unsigned {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xC0U) == 0x80U; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool odd = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F);
    return follows(1) && follows(2) && !odd ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool odd = (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
    return follows(1) && follows(2) && follows(3) && !odd ? 4 : 0;
  }
  return 0;
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
  for (const auto& [mark, name] : kMarks) {
    if (text.starts_with(mark)) {
      return fmt::format("found {} text, wanted UTF-8: iconv -f {} -t UTF-8 FILE > NEW", name, name);
    }
  }
  return "";
}

}  // namespace seer
