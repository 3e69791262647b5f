// SPDX-License-Identifier: Apache-2.0
// Reads the orientation from a block of EXIF data (EXIF 2.32: a TIFF directory, tag 0x0112), for all image formats.
#include <cstring>

#include "image_codecs.hpp"

namespace seer::data {

std::uint32_t number_in(Bytes b, std::size_t at, std::size_t bytes, bool little) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < bytes; ++i) v |= std::uint32_t{b[at + (little ? i : bytes - 1 - i)]} << (8 * i);
  return v;
}

int exif_orientation(Bytes tiff) {
  // The prefix used in JPEG. PNG and WebP should not have it, but some of their writers add it.
  if (tiff.size() >= 6 && std::memcmp(tiff.data(), "Exif\0", 5) == 0) tiff = tiff.subspan(6);
  if (tiff.size() < 8) return 1;
  const bool little = tiff[0] == 'I' && tiff[1] == 'I';
  if (!little && (tiff[0] != 'M' || tiff[1] != 'M')) return 1;
  if (number_in(tiff, 2, 2, little) != 42) return 1;
  const std::size_t directory = number_in(tiff, 4, 4, little);
  if (directory > tiff.size() - 2) return 1;
  const std::size_t entries = number_in(tiff, directory, 2, little);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::size_t at = directory + 2 + 12 * i;
    if (at + 12 > tiff.size()) return 1;
    if (number_in(tiff, at, 2, little) != 0x0112) continue;
    const auto type = number_in(tiff, at + 2, 2, little);
    std::uint32_t value = 0;
    if (type == 1) value = tiff[at + 8];
    if (type == 3) value = number_in(tiff, at + 8, 2, little);
    if (type == 4) value = number_in(tiff, at + 8, 4, little);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

}  // namespace seer::data
