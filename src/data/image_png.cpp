// SPDX-License-Identifier: Apache-2.0
// PNG through libspng. 16-bit samples keep their high byte (Pillow does the same for colour; for grey it clips, which
// makes nearly everything white). An eXIf orientation is not applied: no camera writes PNG.
#include <spng.h>

#include <algorithm>
#include <memory>

#include "image_codecs.hpp"

namespace seer::data {
namespace {

// Compressed colour profiles and texts may not unpack to more than this.
constexpr std::size_t kMaxChunk_bytes = std::size_t{64} << 20;

void check(int status) {
  if (status != 0) broken(ImageKind::png, spng_strerror(status));
}

}  // namespace

ImageHeader png_header(Bytes b) {
  ImageHeader header;
  header.kind = ImageKind::png;
  if (b.size() < 24) return header;
  auto number = [&](std::size_t at) {
    return std::int64_t{b[at]} << 24 | std::int64_t{b[at + 1]} << 16 | std::int64_t{b[at + 2]} << 8 | b[at + 3];
  };
  header.width = number(16);
  header.height = number(20);
  return header;
}

void decode_png(Bytes bytes, std::int64_t max_pixels, Image& out) {
  const std::unique_ptr<spng_ctx, void (*)(spng_ctx*)> context(spng_ctx_new(0), spng_ctx_free);
  if (!context) broken(ImageKind::png, "no memory for a decoder");
  spng_ctx* c = context.get();
  check(spng_set_chunk_limits(c, kMaxChunk_bytes, 2 * kMaxChunk_bytes));
  // A wrong checksum in the pixels is an error; in a comment it is not.
  check(spng_set_crc_action(c, SPNG_CRC_ERROR, SPNG_CRC_DISCARD));
  check(spng_set_png_buffer(c, bytes.data(), bytes.size()));
  spng_ihdr header{};
  check(spng_get_ihdr(c, &header));
  check_size(ImageKind::png, header.width, header.height, max_pixels);
  std::size_t size = 0;
  check(spng_decoded_image_size(c, SPNG_FMT_RGB8, &size));
  reshape(out, header.width, header.height);
  if (size != out.rgb.size()) broken(ImageKind::png, "a size of its own");
  check(spng_decode_image(c, out.rgb.data(), size, SPNG_FMT_RGB8, 0));
}

}  // namespace seer::data
