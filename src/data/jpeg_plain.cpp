// SPDX-License-Identifier: Apache-2.0
// Finds out which JPEG files may be decoded by something other than libjpeg: those that all decoders interpret alike.
#include <cstring>

#include "image_codecs.hpp"

namespace seer::data {
namespace {

std::size_t two(Bytes b, std::size_t at) {
  return static_cast<std::size_t>(b[at]) << 8 | b[at + 1];
}

/// True if the file ends with its end marker, ignoring padding zeros after it. A cut-off file does not.
bool whole(Bytes b) {
  std::size_t end = b.size();
  while (end > 0 && b[end - 1] == 0) --end;
  return end >= 2 && b[end - 2] == 0xFF && b[end - 1] == 0xD9;
}

struct Frame {
  std::int64_t width = 0, height = 0;
  std::size_t components = 0;
  bool usual_ids = true;
};

/// Accepts a baseline frame that is grey, or has three components with chroma at full or half resolution.
std::optional<Frame> frame_of(Bytes s) {
  if (s.size() < 6 || s[0] != 8) return std::nullopt;
  Frame frame;
  frame.height = static_cast<std::int64_t>(two(s, 1));
  frame.width = static_cast<std::int64_t>(two(s, 3));
  frame.components = s[5];
  if ((frame.components != 1 && frame.components != 3) || s.size() != 6 + 3 * frame.components) return std::nullopt;
  for (std::size_t i = 0; i < frame.components; ++i) {
    const int across = s[7 + 3 * i] >> 4, down = s[7 + 3 * i] & 15;
    const int most = i == 0 ? 2 : 1;
    if (across < 1 || across > most || down < 1 || down > most) return std::nullopt;
    frame.usual_ids = frame.usual_ids && s[6 + 3 * i] == i + 1;
  }
  return frame;
}

}  // namespace

std::optional<PlainJpeg> plain_jpeg(Bytes b) {
  if (b.size() < 4 || b[0] != 0xFF || b[1] != 0xD8 || !whole(b) || jpeg_header(b).orientation != 1) return std::nullopt;
  std::optional<Frame> frame;
  bool jfif = false;
  int transform = -1;  // colour transform from Adobe's marker; -1: none
  for (std::size_t at = 2; at + 4 <= b.size();) {
    const int marker = b[at + 1];
    const std::size_t length = two(b, at + 2);
    // Until the scan begins, markers with segments must follow each other without bytes in between.
    if (b[at] != 0xFF || marker < 0xC0 || marker == 0xFF || (marker >= 0xD0 && marker <= 0xD9) || length < 2 ||
        length > b.size() - at - 2)
      return std::nullopt;
    const Bytes segment = b.subspan(at + 4, length - 2);
    if (marker == 0xE0 && segment.size() >= 5 && std::memcmp(segment.data(), "JFIF", 5) == 0) jfif = true;
    if (marker == 0xEE && segment.size() >= 12 && std::memcmp(segment.data(), "Adobe", 5) == 0) transform = segment[11];
    if (marker == 0xC0) {
      if (frame || !(frame = frame_of(segment))) return std::nullopt;
    } else if (marker <= 0xCF && marker != 0xC4) {
      return std::nullopt;  // progressive, arithmetic, lossless
    }
    if (marker == 0xDA) {
      const bool one_scan = frame && !segment.empty() && segment[0] == frame->components;
      if (!one_scan || frame->width < 1 || frame->height < 1) return std::nullopt;
      const bool ycc = jfif || transform == 1 || (transform < 0 && frame->usual_ids);
      if (frame->components == 3 && !ycc) return std::nullopt;
      return PlainJpeg{frame->width, frame->height};
    }
    at += 2 + length;
  }
  return std::nullopt;
}

}  // namespace seer::data
