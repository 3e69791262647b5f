// SPDX-License-Identifier: Apache-2.0
// Decodes PNG with libspng. 16-bit samples keep their high byte (Pillow does the same for colour; for grey it clips,
// which makes nearly everything white). Of an animated PNG, reads the still picture.
#include <spng.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "image_codecs.hpp"

namespace seer::data {
namespace {

// Maximum unpacked size of compressed colour profiles and texts.
constexpr std::size_t kMaxChunk_bytes = std::size_t{64} << 20;

void check(int status) {
  if (status != 0) broken(ImageKind::png, spng_strerror(status));
}

std::uint32_t crc32(Bytes b) {
  std::uint32_t crc = ~0u;
  for (const auto byte : b) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

// The first complete eXIf chunk. It may come after the pixels, where libspng would find it only after decoding them.
Bytes exif_chunk(Bytes b) {
  for (std::size_t at = 8; b.size() - at >= 12;) {
    const std::size_t length = number_in(b, at, 4, false);
    if (length > b.size() - at - 12) break;
    const Bytes typed = b.subspan(at + 4, 4 + length);
    if (std::memcmp(typed.data(), "eXIf", 4) == 0 && crc32(typed) == number_in(b, at + 8 + length, 4, false)) {
      return typed.subspan(4);
    }
    at += 12 + length;
  }
  return {};
}

}  // namespace

ImageHeader png_header(Bytes b) {
  ImageHeader header;
  header.kind = ImageKind::png;
  if (b.size() < 24) return header;
  header.width = number_in(b, 16, 4, false);
  header.height = number_in(b, 20, 4, false);
  header.orientation = exif_orientation(exif_chunk(b));
  return header;
}

void decode_png(Bytes bytes, std::int64_t max_pixels, Image& out) {
  const std::unique_ptr<spng_ctx, void (*)(spng_ctx*)> context(spng_ctx_new(0), spng_ctx_free);
  if (!context) broken(ImageKind::png, "no memory for a decoder");
  spng_ctx* c = context.get();
  check(spng_set_chunk_limits(c, kMaxChunk_bytes, 2 * kMaxChunk_bytes));
  // A wrong checksum of pixel data is an error; that of a comment is not.
  check(spng_set_crc_action(c, SPNG_CRC_ERROR, SPNG_CRC_DISCARD));
  check(spng_set_png_buffer(c, bytes.data(), bytes.size()));
  spng_ihdr header{};
  check(spng_get_ihdr(c, &header));
  check_size(ImageKind::png, header.width, header.height, max_pixels);
  std::size_t size = 0;
  check(spng_decoded_image_size(c, SPNG_FMT_RGB8, &size));
  reshape(out, header.width, header.height);
  if (size != out.rgb.size()) broken(ImageKind::png, "the size of its pixels differs from its header");
  check(spng_decode_image(c, out.rgb.data(), size, SPNG_FMT_RGB8, 0));
}

}  // namespace seer::data
