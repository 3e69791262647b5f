// SPDX-License-Identifier: Apache-2.0
// WebP through libwebp: lossy and lossless stills; animations are refused. An EXIF orientation is not applied.
#include <fmt/format.h>
#include <webp/decode.h>

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

}  // namespace

ImageHeader webp_header(Bytes b) {
  ImageHeader header;
  header.kind = ImageKind::webp;
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(b.data(), b.size(), &features) == VP8_STATUS_OK) {
    header.width = features.width;
    header.height = features.height;
  }
  return header;
}

void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) broken(ImageKind::webp, "libwebp of another version");
  const VP8StatusCode header = WebPGetFeatures(bytes.data(), bytes.size(), &config.input);
  if (header != VP8_STATUS_OK) broken(ImageKind::webp, reason(header));
  if (config.input.has_animation != 0) broken(ImageKind::webp, "an animation, not a picture");
  check_size(ImageKind::webp, config.input.width, config.input.height, max_pixels);
  reshape(out, config.input.width, config.input.height);
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = out.rgb.data();
  config.output.u.RGBA.stride = static_cast<int>(3 * out.width);
  config.output.u.RGBA.size = out.rgb.size();
  const VP8StatusCode status = WebPDecode(bytes.data(), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) broken(ImageKind::webp, reason(status));
}

}  // namespace seer::data
