// SPDX-License-Identifier: Apache-2.0
// JPEG: libjpeg-turbo's libjpeg interface. turbojpeg hides warnings, and a cut-off photo only gives one. Also finds out
// which JPEG files another decoder may decode: those that all decoders interpret alike.
// PNG: libspng. 16-bit samples keep their high byte (Pillow does the same for colour; for grey it clips, which makes
// nearly everything white). Of an animated PNG, reads the still picture.
// WebP: libwebp, lossy and lossless stills. One frame is a still; longer animations are refused.
#include "image_codecs.hpp"

#include <fmt/format.h>
#include <spng.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>
// jpeglib.h needs stdio.h before it, and jerror.h needs what jpeglib.h defines.
#include <jpeglib.h>
//
#include <jerror.h>

namespace seer::data {
namespace {

// Each scan of a progressive file touches the whole image, so a few kilobytes could keep a core busy for hours. Cameras
// and encoders write at most about twenty scans.
constexpr std::int64_t kMaxScans = 500, kUsualScans = 20, kMaxScannedPixels = 2'000'000'000;

struct Decoder {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  std::int64_t scans = kMaxScans;
  std::uint8_t* rows = nullptr;  // output pixels
  JSAMPLE* cmyk = nullptr;       // one line of four components

  ~Decoder() { jpeg_destroy_decompress(&info); }  // does nothing if it was not created
};

[[noreturn]] void stop(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  if (decoder->message[0] == '\0') info->err->format_message(info, decoder->message);
  std::longjmp(decoder->jump, 1);
}

// Treats warnings as errors if the decoder invents pixels after them. Other warnings (bytes between segments, odd
// version numbers) leave the picture intact, and photos with them are common.
void warn(j_common_ptr info, int level) {
  constexpr int kInventsPixels[] = {JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE, JWRN_ARITH_BAD_CODE,
                                    JWRN_JPEG_EOF,   JWRN_MUST_RESYNC,   JWRN_TOO_MUCH_DATA};
  if (level < 0 && std::ranges::find(kInventsPixels, info->err->msg_code) != std::end(kInventsPixels)) stop(info);
}

void count_scans(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  if (decoder->info.input_scan_number <= decoder->scans) return;
  std::snprintf(decoder->message, sizeof decoder->message, "more than %d scans for %u x %u pixels",
                static_cast<int>(decoder->scans), decoder->info.image_width, decoder->info.image_height);
  stop(info);
}

// Runs `step`, which libjpeg may leave by longjmp. `step` must own nothing that has a destructor.
template <class Step>
void guarded(Decoder& decoder, Step step) {
  if (setjmp(decoder.jump) != 0) {
    const int code = decoder.errors.msg_code;
    if (code == JERR_BAD_PRECISION || code == JERR_SOF_UNSUPPORTED || code == JERR_CONVERSION_NOTIMPL)
      not_supported(fmt::format("JPEG: {}", decoder.message));
    broken(ImageKind::jpeg, decoder.message);
  }
  step(decoder);
}

// Pillow's arithmetic (Convert.c, cmyk2rgb). Like Pillow, assumes Adobe's convention that stored values are inverted.
std::uint8_t ink(int stored, int stored_black) {
  const int t = (255 - stored) * stored_black + 128;
  return static_cast<std::uint8_t>(std::clamp(stored_black - (((t >> 8) + t) >> 8), 0, 255));
}

/// True if the file ends with its end marker, ignoring padding zeros after it. A cut-off file does not.
bool whole(Bytes b) {
  std::size_t end = b.size();
  while (end > 0 && b[end - 1] == 0) --end;
  return end >= 2 && b[end - 2] == 0xFF && b[end - 1] == 0xD9;
}

struct Frame {
  std::size_t components = 0;
  bool usual_ids = true;
};

/// Accepts a baseline frame that is grey, or has three components with chroma at full or half resolution.
std::optional<Frame> frame_of(Bytes s) {
  if (s.size() < 6 || s[0] != 8) return std::nullopt;
  Frame frame;
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
    if (std::memcmp(typed.data(), "eXIf", 4) == 0 && crc32(typed) == number_in(b, at + 8 + length, 4, false))
      return typed.subspan(4);
    at += 12 + length;
  }
  return {};
}

const char* reason(VP8StatusCode status) {
  if (status == VP8_STATUS_OUT_OF_MEMORY) return "out of memory";
  if (status == VP8_STATUS_UNSUPPORTED_FEATURE) return "a feature that libwebp does not know";
  if (status == VP8_STATUS_SUSPENDED || status == VP8_STATUS_NOT_ENOUGH_DATA) return "cut off";
  return "broken bitstream";
}

// The file's chunks. If they do not make a whole file, the demuxer is null or its state is not DONE.
struct Chunks {
  explicit Chunks(Bytes b) {
    const WebPData data{b.data(), b.size()};
    demuxer.reset(WebPDemuxPartial(&data, &state));
  }
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer{nullptr, WebPDemuxDelete};
};

// The picture's bytes and its place on the canvas.
struct Picture {
  Bytes bytes;
  std::int64_t x = 0, y = 0;
};

Picture only_frame(Bytes bytes) {
  const Chunks chunks(bytes);
  if (chunks.state != WEBP_DEMUX_DONE)
    broken(ImageKind::webp, chunks.state == WEBP_DEMUX_PARSE_ERROR ? "broken animation" : "cut off");
  const auto frames = WebPDemuxGetI(chunks.demuxer.get(), WEBP_FF_FRAME_COUNT);
  if (frames > 1) not_supported(fmt::format("animated WebP ({} frames)", frames));
  WebPIterator only{};
  if (WebPDemuxGetFrame(chunks.demuxer.get(), 1, &only) == 0) broken(ImageKind::webp, "an animation without frames");
  const Picture picture{{only.fragment.bytes, only.fragment.size}, only.x_offset, only.y_offset};
  WebPDemuxReleaseIterator(&only);
  return picture;
}

}  // namespace

ImageHeader jpeg_header(Bytes b) {
  ImageHeader header;
  bool exif = false;
  for (std::size_t at = 2; at + 4 <= b.size();) {
    if (b[at] != 0xFF || b[at + 1] == 0xFF || b[at + 1] == 0) {  // padding, or bytes that belong to no segment
      ++at;
      continue;
    }
    const int marker = b[at + 1];
    if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) {
      at += 2;
      continue;
    }
    if (marker == 0xD9 || marker == 0xDA) break;
    const std::size_t length = number_in(b, at + 2, 2, false);
    if (length < 2 || length > b.size() - at - 2) break;
    const Bytes segment = b.subspan(at + 4, length - 2);
    if (marker == 0xE1 && !exif && segment.size() >= 6 && std::memcmp(segment.data(), "Exif\0", 5) == 0) {
      header.orientation = exif_orientation(segment);
      exif = true;
    }
    const bool frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (frame && header.width == 0 && segment.size() >= 6) {
      header.height = number_in(segment, 1, 2, false);
      header.width = number_in(segment, 3, 2, false);
    }
    at += 2 + length;
  }
  return header;
}

void decode_jpeg(Bytes bytes, std::int64_t max_pixels, Image& out) {
  Decoder d;
  std::vector<JSAMPLE> line;
  d.info.err = jpeg_std_error(&d.errors);
  d.errors.error_exit = stop;
  d.errors.emit_message = warn;
  d.errors.output_message = [](j_common_ptr) {};
  d.info.client_data = &d;
  d.progress.progress_monitor = count_scans;
  guarded(d, [](Decoder& j) {
    jpeg_create_decompress(&j.info);
    j.info.client_data = &j;  // create clears all but err and client_data; kept explicit for other libjpegs
    j.info.progress = &j.progress;
  });
  jpeg_mem_src(&d.info, bytes.data(), bytes.size());
  guarded(d, [](Decoder& j) { jpeg_read_header(&j.info, TRUE); });
  check_size(ImageKind::jpeg, d.info.image_width, d.info.image_height, max_pixels);
  if (d.info.data_precision != 8)
    not_supported(fmt::format("JPEG with {} bits per sample, only 8 are supported", d.info.data_precision));
  const auto pixels = std::int64_t{d.info.image_width} * d.info.image_height;
  d.scans = std::clamp(kMaxScannedPixels / pixels, kUsualScans, kMaxScans);
  const bool inks = d.info.jpeg_color_space == JCS_CMYK || d.info.jpeg_color_space == JCS_YCCK;
  if (d.info.jpeg_color_space == JCS_UNKNOWN)
    not_supported(fmt::format("JPEG with {} components of unknown colours", d.info.num_components));
  d.info.out_color_space = inks ? JCS_CMYK : JCS_RGB;
  guarded(d, [](Decoder& j) { jpeg_start_decompress(&j.info); });

  reshape(out, d.info.output_width, d.info.output_height);
  d.rows = out.rgb.data();
  if (inks) {
    line.resize(std::size_t{4} * d.info.output_width);
    d.cmyk = line.data();
  }
  guarded(d, [](Decoder& j) {
    const std::size_t stride = std::size_t{3} * j.info.output_width;
    while (j.info.output_scanline < j.info.output_height) {
      std::uint8_t* row = j.rows + stride * j.info.output_scanline;
      JSAMPROW target = j.cmyk != nullptr ? j.cmyk : row;
      if (jpeg_read_scanlines(&j.info, &target, 1) != 1) break;
      if (j.cmyk == nullptr) continue;
      for (std::size_t x = 0; x < j.info.output_width; ++x)
        for (std::size_t c = 0; c < 3; ++c) row[3 * x + c] = ink(j.cmyk[4 * x + c], j.cmyk[4 * x + 3]);
    }
    jpeg_finish_decompress(&j.info);  // a missing end marker is found here
  });
}

std::optional<ImageHeader> plain_jpeg(Bytes b) {
  if (b.size() < 4 || b[0] != 0xFF || b[1] != 0xD8 || !whole(b)) return std::nullopt;
  const auto header = jpeg_header(b);
  if (header.orientation != 1) return std::nullopt;
  std::optional<Frame> frame;
  bool jfif = false;
  int transform = -1;  // colour transform from Adobe's marker; -1: none
  for (std::size_t at = 2; at + 4 <= b.size();) {
    const int marker = b[at + 1];
    const std::size_t length = number_in(b, at + 2, 2, false);
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
      if (!one_scan || header.width < 1 || header.height < 1) return std::nullopt;
      const bool ycc = jfif || transform == 1 || (transform < 0 && frame->usual_ids);
      if (frame->components == 3 && !ycc) return std::nullopt;
      return header;
    }
    at += 2 + length;
  }
  return std::nullopt;
}

ImageHeader png_header(Bytes b) {
  if (b.size() < 24) return {};
  return {ImageKind::png, number_in(b, 16, 4, false), number_in(b, 20, 4, false), exif_orientation(exif_chunk(b))};
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

ImageHeader webp_header(Bytes b) {
  WebPBitstreamFeatures features;
  if (WebPGetFeatures(b.data(), b.size(), &features) != VP8_STATUS_OK) return {};
  ImageHeader header{ImageKind::webp, features.width, features.height};
  const Chunks chunks(b);
  WebPChunkIterator exif{};
  if (chunks.demuxer && WebPDemuxGetChunk(chunks.demuxer.get(), "EXIF", 1, &exif) != 0)
    header.orientation = exif_orientation({exif.chunk.bytes, exif.chunk.size});
  WebPDemuxReleaseChunkIterator(&exif);
  return header;
}

void decode_webp(Bytes bytes, std::int64_t max_pixels, Image& out) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) broken(ImageKind::webp, "libwebp of another version");
  const VP8StatusCode header = WebPGetFeatures(bytes.data(), bytes.size(), &config.input);
  if (header == VP8_STATUS_UNSUPPORTED_FEATURE) not_supported("WebP with a feature that libwebp does not know");
  if (header != VP8_STATUS_OK) broken(ImageKind::webp, reason(header));
  check_size(ImageKind::webp, config.input.width, config.input.height, max_pixels);
  Picture picture{bytes};
  if (config.input.has_animation != 0) picture = only_frame(bytes);
  reshape(out, config.input.width, config.input.height);
  if (config.input.has_animation != 0) std::fill(out.rgb.begin(), out.rgb.end(), std::uint8_t{0});
  const auto at = static_cast<std::size_t>(3 * (picture.y * out.width + picture.x));
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = out.rgb.data() + at;
  config.output.u.RGBA.stride = static_cast<int>(3 * out.width);
  config.output.u.RGBA.size = out.rgb.size() - at;
  const VP8StatusCode status = WebPDecode(picture.bytes.data(), picture.bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) broken(ImageKind::webp, reason(status));
}

}  // namespace seer::data
