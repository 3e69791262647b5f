// SPDX-License-Identifier: Apache-2.0
#include "seer/data/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "image_codecs.hpp"

namespace seer::data {
namespace {

struct Codec {
  ImageKind kind;
  ImageHeader (*header)(Bytes);
  void (*decode)(Bytes, std::int64_t, Image&);
};

const Codec* codec_of(Bytes b) {
  static constexpr Codec kJpeg{ImageKind::jpeg, jpeg_header, decode_jpeg}, kPng{ImageKind::png, png_header, decode_png},
      kWebp{ImageKind::webp, webp_header, decode_webp};
  const std::string_view start(reinterpret_cast<const char*>(b.data()), std::min<std::size_t>(b.size(), 12));
  if (start.starts_with("\xFF\xD8\xFF")) return &kJpeg;
  if (start.starts_with("\x89PNG\r\n\x1A\n")) return &kPng;
  if (start.starts_with("RIFF") && start.ends_with("WEBP")) return &kWebp;
  return nullptr;
}

// Turns a stored image upright: EXIF orientations 2 to 8 (EXIF 2.32, tag 0x0112).
void orient(const Image& in, int orientation, Image& out) {
  const std::int64_t w = in.width, h = in.height;
  const bool turned = orientation >= 5;
  reshape(out, turned ? h : w, turned ? w : h);
  std::uint8_t* to = out.rgb.data();
  for (std::int64_t y = 0; y < out.height; ++y) {
    for (std::int64_t x = 0; x < out.width; ++x, to += 3) {
      std::int64_t sx = turned ? y : x, sy = turned ? x : y;
      if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) sx = w - 1 - sx;
      if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) sy = h - 1 - sy;
      std::memcpy(to, in.rgb.data() + 3 * (sy * w + sx), 3);
    }
  }
}

}  // namespace

const char* name_of(ImageKind kind) {
  return std::array{"unknown", "JPEG", "PNG", "WebP"}[static_cast<std::size_t>(kind)];
}

void broken(ImageKind kind, const std::string& why) {
  throw Error(ExitCode::file, fmt::format("{}: {}", name_of(kind), why));
}

void not_supported(const std::string& what) {
  throw NotSupported(ExitCode::file, what);
}

void check_size(ImageKind kind, std::int64_t width, std::int64_t height, std::int64_t max_pixels) {
  if (width < 1 || height < 1) broken(kind, fmt::format("declares {} x {} pixels", width, height));
  if (width > max_pixels / height)
    broken(kind, fmt::format("declares {} x {} pixels, over the limit of {}", width, height, max_pixels));
}

void reshape(Image& image, std::int64_t width, std::int64_t height) {
  const auto bytes = static_cast<std::size_t>(3 * width * height);
  if (bytes > image.rgb.capacity()) image.rgb = {};  // else both exist for a moment
  image.width = width;
  image.height = height;
  image.rgb.resize(bytes);
}

std::uint32_t number_in(Bytes b, std::size_t at, std::size_t bytes, bool little) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < bytes; ++i) v |= std::uint32_t{b[at + (little ? i : bytes - 1 - i)]} << (8 * i);
  return v;
}

// EXIF 2.32: a TIFF directory, tag 0x0112.
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
    const auto value = number_in(tiff, at + 8, type == 1 ? 1 : type == 3 ? 2 : type == 4 ? 4 : 0, little);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

ImageHeader read_header(Bytes bytes) {
  const auto* codec = codec_of(bytes);
  if (codec == nullptr) return {};
  auto header = codec->header(bytes);
  header.kind = codec->kind;
  if (header.orientation >= 5) std::swap(header.width, header.height);
  return header;
}

void decode(Bytes bytes, std::int64_t max_pixels, Image& out) {
  const auto* codec = codec_of(bytes);
  if (codec == nullptr)
    throw Error(ExitCode::file, bytes.empty() ? "empty (0 bytes)" : "not a JPEG, PNG or WebP image");
  const int orientation = codec->header(bytes).orientation;
  if (orientation == 1) return codec->decode(bytes, max_pixels, out);
  thread_local Image stored;  // reused: most photos taken with a phone are turned
  codec->decode(bytes, max_pixels, stored);
  orient(stored, orientation, out);
}

}  // namespace seer::data
