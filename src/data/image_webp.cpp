// SPDX-License-Identifier: Apache-2.0
// Decodes WebP with libwebp: lossy and lossless stills. One frame is a still; longer animations are refused.
#include <fmt/format.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>

#include "image_codecs.hpp"

namespace seer::data {
namespace {

const char* reason(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "a feature that libwebp does not know";
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      return "cut off";
    default:
      return "broken bitstream";
  }
}

// The file's chunks; WebPDemuxer* is null, or `state` not DONE, where they do not make a whole file.
struct Chunks {
  explicit Chunks(Bytes b) {
    const WebPData data{b.data(), b.size()};
    demuxer.reset(WebPDemuxPartial(&data, &state));
  }
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer{nullptr, WebPDemuxDelete};
};

int orientation_of(Bytes b) {
  const Chunks chunks(b);
  WebPChunkIterator exif{};
  int orientation = 1;
  if (chunks.demuxer && WebPDemuxGetChunk(chunks.demuxer.get(), "EXIF", 1, &exif) != 0) {
    orientation = exif_orientation({exif.chunk.bytes, exif.chunk.size});
  }
  WebPDemuxReleaseChunkIterator(&exif);
  return orientation;
}

// The picture's bytes and its place on the canvas.
struct Frame {
  Bytes bytes;
  std::int64_t x = 0, y = 0;
};

Frame only_frame(Bytes bytes) {
  const Chunks chunks(bytes);
  if (chunks.state != WEBP_DEMUX_DONE) {
    broken(ImageKind::webp, chunks.state == WEBP_DEMUX_PARSE_ERROR ? "broken animation" : "cut off");
  }
  const auto frames = WebPDemuxGetI(chunks.demuxer.get(), WEBP_FF_FRAME_COUNT);
  if (frames > 1) not_supported(fmt::format("animated WebP ({} frames)", frames));
  WebPIterator only{};
  if (WebPDemuxGetFrame(chunks.demuxer.get(), 1, &only) == 0) broken(ImageKind::webp, "an animation without frames");
  const Frame frame{{only.fragment.bytes, only.fragment.size}, only.x_offset, only.y_offset};
  WebPDemuxReleaseIterator(&only);
  return frame;
}

}  // namespace

ImageHeader webp_header(Bytes b) {
  ImageHeader header;
  header.kind = ImageKind::webp;
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(b.data(), b.size(), &features) == VP8_STATUS_OK) {
    header.width = features.width;
    header.height = features.height;
    header.orientation = orientation_of(b);
  }
  return header;
}

void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) broken(ImageKind::webp, "libwebp of another version");
  const VP8StatusCode header = WebPGetFeatures(bytes.data(), bytes.size(), &config.input);
  if (header == VP8_STATUS_UNSUPPORTED_FEATURE) not_supported("WebP with a feature that libwebp does not know");
  if (header != VP8_STATUS_OK) broken(ImageKind::webp, reason(header));
  check_size(ImageKind::webp, config.input.width, config.input.height, max_pixels);
  Frame frame{bytes};
  if (config.input.has_animation != 0) frame = only_frame(bytes);
  reshape(out, config.input.width, config.input.height);
  if (config.input.has_animation != 0) std::fill(out.rgb.begin(), out.rgb.end(), std::uint8_t{0});
  const auto at = static_cast<std::size_t>(3 * (frame.y * out.width + frame.x));
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = out.rgb.data() + at;
  config.output.u.RGBA.stride = static_cast<int>(3 * out.width);
  config.output.u.RGBA.size = out.rgb.size() - at;
  const VP8StatusCode status = WebPDecode(frame.bytes.data(), frame.bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) broken(ImageKind::webp, reason(status));
}

}  // namespace seer::data
