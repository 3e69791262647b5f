// SPDX-License-Identifier: Apache-2.0
#include "seer/data/image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "image_codecs.hpp"
#include "seer/base/error.hpp"

namespace seer::data {
namespace {

struct Codec {
  ImageHeader (*header)(Bytes);
  void (*decode)(Bytes, std::int64_t, Image&);
};

const Codec* codec_of(Bytes b) {
  static constexpr Codec kJpeg{jpeg_header, decode_jpeg}, kPng{png_header, decode_png}, kWebp{webp_header, decode_webp};
  auto starts = [&](std::size_t at, const char* with, std::size_t length) {
    return b.size() >= at + length && std::memcmp(b.data() + at, with, length) == 0;
  };
  if (starts(0, "\xFF\xD8\xFF", 3)) return &kJpeg;
  if (starts(0, "\x89PNG\r\n\x1A\n", 8)) return &kPng;
  if (starts(0, "RIFF", 4) && starts(8, "WEBP", 4)) return &kWebp;
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
  switch (kind) {
    case ImageKind::jpeg:
      return "JPEG";
    case ImageKind::png:
      return "PNG";
    case ImageKind::webp:
      return "WebP";
    case ImageKind::unknown:
      break;
  }
  return "unknown";
}

void broken(ImageKind kind, const std::string& why) {
  throw Error(ExitCode::file, fmt::format("{}: {}", name_of(kind), why));
}

void not_supported(const std::string& what) {
  throw NotSupported(ExitCode::file, what);
}

void check_size(ImageKind kind, std::int64_t width, std::int64_t height, std::int64_t max_pixels) {
  if (width < 1 || height < 1) broken(kind, fmt::format("declares {} x {} pixels", width, height));
  if (width > max_pixels / height) {
    broken(kind, fmt::format("declares {} x {} pixels, over the limit of {}", width, height, max_pixels));
  }
}

void reshape(Image& image, std::int64_t width, std::int64_t height) {
  const auto bytes = static_cast<std::size_t>(3 * width * height);
  if (bytes > image.rgb.capacity()) image.rgb = {};  // else both exist for a moment
  image.width = width;
  image.height = height;
  image.rgb.resize(bytes);
}

ImageHeader read_header(Bytes bytes) {
  const auto* codec = codec_of(bytes);
  if (codec == nullptr) return {};
  auto header = codec->header(bytes);
  if (header.orientation >= 5) std::swap(header.width, header.height);
  return header;
}

void decode(Bytes bytes, std::int64_t max_pixels, Image& out) {
  const auto* codec = codec_of(bytes);
  if (codec == nullptr) {
    throw Error(ExitCode::file, bytes.empty() ? "empty (0 bytes)" : "not a JPEG, PNG or WebP image");
  }
  const int orientation = codec->header(bytes).orientation;
  if (orientation == 1) return codec->decode(bytes, max_pixels, out);
  thread_local Image stored;  // reused: most photos taken with a phone are turned
  codec->decode(bytes, max_pixels, stored);
  orient(stored, orientation, out);
}

}  // namespace seer::data
