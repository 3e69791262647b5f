// SPDX-License-Identifier: Apache-2.0
// The image codecs. Each decodes the picture as stored (EXIF not applied) and checks its size first.
// Private to image*.cpp and the device decoder.
#pragma once

#include <optional>
#include <string>

#include "seer/data/image.hpp"

namespace seer::data {

using Bytes = std::span<const std::uint8_t>;

/// Error(file) unless 1 <= width * height <= max_pixels.
void check_size(ImageKind kind, std::int64_t width, std::int64_t height, std::int64_t max_pixels);
/// Resizes an image before decoding into it. If its memory is too small, frees it before allocating more.
void reshape(Image& image, std::int64_t width, std::int64_t height);
[[noreturn]] void broken(ImageKind kind, const std::string& why);
/// For a file that is intact but of an unsupported kind: "animated WebP (3 frames)".
[[noreturn]] void not_supported(const std::string& what);

/// Reads an unsigned number of up to 4 bytes, which must lie inside `b`.
std::uint32_t number_in(Bytes b, std::size_t at, std::size_t bytes, bool little);
/// The orientation, 1 to 8; 1 if there is none or the block is malformed. Accepts a leading "Exif\0\0".
int exif_orientation(Bytes exif);

ImageHeader jpeg_header(Bytes bytes);
void decode_jpeg(Bytes bytes, std::int64_t max_pixels, Image& out);
/// The header of a JPEG that all decoders interpret alike: baseline, one scan, grey or YCbCr, upright, not cut off.
std::optional<ImageHeader> plain_jpeg(Bytes bytes);
ImageHeader png_header(Bytes bytes);
void decode_png(Bytes bytes, std::int64_t max_pixels, Image& out);
ImageHeader webp_header(Bytes bytes);
void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out);

}  // namespace seer::data
