// SPDX-License-Identifier: Apache-2.0
// Decodes JPEG with libjpeg-turbo's libjpeg interface. turbojpeg hides warnings, and a cut-off photo only gives one.
#include <fmt/format.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
// jpeglib.h needs stdio.h before it, and jerror.h needs what jpeglib.h defines.
#include <jpeglib.h>
//
#include <jerror.h>

#include "image_codecs.hpp"
#include "seer/base/error.hpp"

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
  bool created = false;

  Decoder() = default;
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() {
    if (created) jpeg_destroy_decompress(&info);
  }
};

[[noreturn]] void stop(j_common_ptr info) {
  auto* decoder = static_cast<Decoder*>(info->client_data);
  if (decoder->message[0] == '\0') info->err->format_message(info, decoder->message);
  std::longjmp(decoder->jump, 1);
}

// Treats warnings as errors if the decoder invents pixels after them. Other warnings (bytes between segments, odd
// version numbers) leave the picture intact, and photos with them are common.
void warn(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC:
    case JWRN_TOO_MUCH_DATA:
      stop(info);
    default:
      break;
  }
}

void silent(j_common_ptr) {}

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
    if (code == JERR_BAD_PRECISION || code == JERR_SOF_UNSUPPORTED || code == JERR_CONVERSION_NOTIMPL) {
      not_supported(fmt::format("JPEG: {}", decoder.message));
    }
    broken(ImageKind::jpeg, decoder.message);
  }
  step(decoder);
}

// Pillow's arithmetic (Convert.c, cmyk2rgb). Like Pillow, assumes Adobe's convention that stored values are inverted.
std::uint8_t ink(int stored, int stored_black) {
  const int t = (255 - stored) * stored_black + 128;
  return static_cast<std::uint8_t>(std::clamp(stored_black - (((t >> 8) + t) >> 8), 0, 255));
}

}  // namespace

ImageHeader jpeg_header(Bytes b) {
  ImageHeader header;
  header.kind = ImageKind::jpeg;
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
  d.errors.output_message = silent;
  d.info.client_data = &d;
  d.progress.progress_monitor = count_scans;
  guarded(d, [](Decoder& j) {
    jpeg_create_decompress(&j.info);
    j.created = true;
    j.info.client_data = &j;  // create clears all but err and client_data; kept explicit for other libjpegs
    j.info.progress = &j.progress;
  });
  jpeg_mem_src(&d.info, bytes.data(), bytes.size());
  guarded(d, [](Decoder& j) { jpeg_read_header(&j.info, TRUE); });
  check_size(ImageKind::jpeg, d.info.image_width, d.info.image_height, max_pixels);
  if (d.info.data_precision != 8) {
    not_supported(fmt::format("JPEG with {} bits a sample, only 8 are read", d.info.data_precision));
  }
  const auto pixels = std::int64_t{d.info.image_width} * d.info.image_height;
  d.scans = std::clamp(kMaxScannedPixels / pixels, kUsualScans, kMaxScans);
  const bool inks = d.info.jpeg_color_space == JCS_CMYK || d.info.jpeg_color_space == JCS_YCCK;
  if (d.info.jpeg_color_space == JCS_UNKNOWN) {
    not_supported(fmt::format("JPEG with {} components of unknown colours", d.info.num_components));
  }
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
      for (std::size_t x = 0; x < j.info.output_width; ++x) {
        for (std::size_t c = 0; c < 3; ++c) row[3 * x + c] = ink(j.cmyk[4 * x + c], j.cmyk[4 * x + 3]);
      }
    }
    jpeg_finish_decompress(&j.info);  // a missing end marker is found here
  });
}

}  // namespace seer::data
