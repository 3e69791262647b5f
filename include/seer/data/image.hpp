// SPDX-License-Identifier: Apache-2.0
// Encoded images (JPEG, PNG, WebP) to 8-bit RGB. Files are hostile: sizes are checked before anything is allocated.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/base/error.hpp"

namespace seer::data {

/// Row-major, 3 bytes a pixel (R, G, B), rows dense.
struct Image {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> rgb;
};

enum class ImageKind : std::uint8_t { unknown, jpeg, png, webp };
const char* name_of(ImageKind kind);

/// A file of one of our formats that is whole, and of a sort that is not read (an animation, 12 bits a sample).
struct NotSupported : Error {
  using Error::Error;
};

/// What the header declares, EXIF orientation applied. kind == unknown: not one of ours.
struct ImageHeader {
  ImageKind kind = ImageKind::unknown;
  std::int64_t width = 0, height = 0;
  int orientation = 1;  ///< EXIF, 1..8
};

ImageHeader read_header(std::span<const std::uint8_t> bytes);

/// Decodes to RGB, upright (EXIF orientation applied). Grey and palette images are widened, CMYK/YCCK converted as
/// Pillow's convert("RGB") does, alpha dropped, 16-bit PNG reduced to 8. `out` is reused. Thread-safe.
/// Of an animated PNG the still picture, of a WebP animation of one frame that frame.
/// NotSupported, or Error(file): not an image of ours, broken or cut off, more than max_pixels pixels (checked before
/// allocating).
void decode(std::span<const std::uint8_t> bytes, std::int64_t max_pixels, Image& out);

}  // namespace seer::data
