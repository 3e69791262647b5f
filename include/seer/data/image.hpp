// SPDX-License-Identifier: Apache-2.0
// Decodes images (JPEG, PNG, WebP) to 8-bit RGB. Files are treated as hostile: sizes are checked before any allocation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seer/base/error.hpp"

namespace seer::data {

/// Row-major, 3 bytes per pixel (R, G, B), no padding between rows.
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

enum class ImageKind : std::uint8_t { unknown, jpeg, png, webp };
const char* name_of(ImageKind kind);

/// The file is intact and in one of our formats, but of an unsupported kind (an animation, 12 bits per sample).
struct NotSupported : Error {
  using Error::Error;
};

/// What the header declares, after applying the EXIF orientation. kind == unknown: not one of our formats.
struct ImageHeader {
  ImageKind kind = ImageKind::unknown;
  std::int64_t width = 0, height = 0;
  int orientation = 1;  ///< EXIF, 1..8
};

ImageHeader read_header(std::span<const std::uint8_t> bytes);

/// Decodes to RGB, upright (EXIF orientation applied). Widens grey and palette images, converts CMYK/YCCK as Pillow's
/// convert("RGB") does, drops alpha and reduces 16-bit PNG to 8 bits. An animated PNG gives its still picture, a WebP
/// animation with one frame gives that frame. Reuses the memory of `out`. Thread-safe.
/// Throws NotSupported, or Error(file) if the file is not in one of our formats, is broken or cut off, or has more than
/// max_pixels pixels (checked before allocating).
void decode(std::span<const std::uint8_t> bytes, std::int64_t max_pixels, Image& out);

}  // namespace seer::data
