// SPDX-License-Identifier: Apache-2.0
// A valid PNG of noise, written by hand (stored deflate blocks), so that tests need no encoder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "seer/base/random.hpp"

namespace seer::test {

inline std::uint32_t crc32(const std::vector<std::uint8_t>& bytes, std::size_t from) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (std::size_t i = from; i < bytes.size(); ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

inline void put32(std::vector<std::uint8_t>& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<std::uint8_t>(value >> shift));
}

inline void put_chunk(std::vector<std::uint8_t>& out, const std::string& type, const std::vector<std::uint8_t>& body) {
  put32(out, static_cast<std::uint32_t>(body.size()));
  const std::size_t from = out.size();
  out.insert(out.end(), type.begin(), type.end());
  out.insert(out.end(), body.begin(), body.end());
  put32(out, crc32(out, from));
}

/// 8-bit RGB, width x height, pixels drawn from `seed`.
inline std::vector<std::uint8_t> tiny_png(std::uint32_t width, std::uint32_t height, std::uint64_t seed) {
  Random random(seed, Purpose::test, 77);
  std::vector<std::uint8_t> raw;
  for (std::uint32_t y = 0; y < height; ++y) {
    raw.push_back(0);  // no filter
    for (std::uint32_t x = 0; x < width * 3; ++x) raw.push_back(static_cast<std::uint8_t>(random.bits() >> 24));
  }
  std::vector<std::uint8_t> data = {0x78, 0x01};
  for (std::size_t at = 0; at < raw.size(); at += 65535) {
    const auto length = static_cast<std::uint16_t>(std::min<std::size_t>(65535, raw.size() - at));
    const auto inverse = static_cast<std::uint16_t>(~length);
    data.push_back(at + length == raw.size() ? 1 : 0);
    for (const auto value : {length, inverse}) {
      data.push_back(static_cast<std::uint8_t>(value & 255));
      data.push_back(static_cast<std::uint8_t>(value >> 8));
    }
    data.insert(data.end(), raw.begin() + static_cast<std::ptrdiff_t>(at),
                raw.begin() + static_cast<std::ptrdiff_t>(at + length));
  }
  std::uint32_t a = 1, b = 0;
  for (const auto byte : raw) {
    a = (a + byte) % 65521;
    b = (b + a) % 65521;
  }
  put32(data, (b << 16) | a);
  std::vector<std::uint8_t> header;
  put32(header, width);
  put32(header, height);
  header.insert(header.end(), {8, 2, 0, 0, 0});
  std::vector<std::uint8_t> out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  put_chunk(out, "IHDR", header);
  put_chunk(out, "IDAT", data);
  put_chunk(out, "IEND", {});
  return out;
}

}  // namespace seer::test
