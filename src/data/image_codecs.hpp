// SPDX-License-Identifier: Apache-2.0
// Private to image*.cpp: one codec a file. Each decodes as stored (EXIF not applied) and checks the size first.
#pragma once

#include <span>
#include <string>

#include "seer/data/image.hpp"

namespace seer::data {

using Bytes = std::span<const std::uint8_t>;

/// Error(file) unless 1 <= width * height <= max_pixels.
void check_size(ImageKind kind, std::int64_t width, std::int64_t height, std::int64_t max_pixels);
[[noreturn]] void broken(ImageKind kind, const std::string& why);

ImageHeader jpeg_header(Bytes bytes);
void decode_jpeg(Bytes bytes, std::int64_t max_pixels, Image& out);
ImageHeader png_header(Bytes bytes);
void decode_png(Bytes bytes, std::int64_t max_pixels, Image& out);
ImageHeader webp_header(Bytes bytes);
void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out);

}  // namespace seer::data
