// SPDX-License-Identifier: Apache-2.0
// Private to image*.cpp, jpeg_plain.cpp and what decodes on a device: one codec a file. Each decodes as stored (EXIF
// not applied) and checks the size first.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "seer/data/image.hpp"

namespace seer::data {

using Bytes = std::span<const std::uint8_t>;

/// Error(file) unless 1 <= width * height <= max_pixels.
void check_size(ImageKind kind, std::int64_t width, std::int64_t height, std::int64_t max_pixels);
/// Sizes an image for what is decoded into it; the memory of a smaller one goes first.
void reshape(Image& image, std::int64_t width, std::int64_t height);
[[noreturn]] void broken(ImageKind kind, const std::string& why);
/// Whole, but of a sort that is not read: "animated WebP (3 frames)".
[[noreturn]] void not_supported(const std::string& what);

/// An unsigned number of up to 4 bytes, which must be inside `b`.
std::uint32_t number_in(Bytes b, std::size_t at, std::size_t bytes, bool little);
/// 1 to 8; 1 where there is none or the block makes no sense. With or without a leading "Exif\0\0".
int exif_orientation(Bytes exif);

ImageHeader jpeg_header(Bytes bytes);
void decode_jpeg(Bytes bytes, std::int64_t max_pixels, Image& out);
/// Size of a JPEG that every decoder takes to mean the same: baseline, one scan, grey or YCbCr, upright, not cut off.
struct PlainJpeg {
  std::int64_t width = 0, height = 0;
};
std::optional<PlainJpeg> plain_jpeg(Bytes bytes);
ImageHeader png_header(Bytes bytes);
void decode_png(Bytes bytes, std::int64_t max_pixels, Image& out);
ImageHeader webp_header(Bytes bytes);
void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out);

}  // namespace seer::data
