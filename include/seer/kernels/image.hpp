// SPDX-License-Identifier: Apache-2.0
// Operations on 8-bit images, bit for bit as Pillow and torchvision compute them (method.md 4.2). Many reader threads
// call them at once: each call is a plain loop on the calling thread and touches only its arguments. For whole batches,
// on the host or a device, see kernels/image_batch.hpp.
#pragma once

#include <cstdint>
#include <vector>

namespace seer::kernels {

/// 8-bit RGB as three planes (R, G, B). Rows are padded to a multiple of 32 bytes so that loops run in whole vectors;
/// the contents of the padding are undefined.
struct Planes {
  std::int64_t width = 0, height = 0, stride = 0;
  std::vector<std::uint8_t> bytes;  ///< [3, height, stride]

  void reshape(std::int64_t new_width, std::int64_t new_height);
  std::int64_t plane_bytes() const { return height * stride; }
  std::uint8_t* plane(int channel) { return bytes.data() + channel * plane_bytes(); }
  const std::uint8_t* plane(int channel) const { return bytes.data() + channel * plane_bytes(); }
};

/// Buffers that calls reuse; one per thread.
struct ImageScratch {
  struct Taps {
    std::vector<std::int64_t> first;   ///< index of each output's first input
    std::vector<std::int64_t> begin;   ///< where each output's weights begin; one more entry at the end
    std::vector<std::int32_t> weight;  ///< times 2^22
  };
  Taps horizontal, vertical;
  std::vector<std::uint8_t> columns, strip, edge;
  std::vector<std::int32_t> sums;
  std::int64_t bytes() const;
};

/// A rectangle of pixels of the source image.
struct Box {
  std::int64_t left = 0, top = 0, width = 0, height = 0;
};

enum class Flip : bool { no, yes };

/// Pillow's crop(box) then resize((width, height), BILINEAR): antialiased triangle filter, fixed point 2^22, 8-bit
/// between the horizontal and the vertical pass; then mirrored left to right if asked. `rgb`: interleaved pixels of the
/// whole image, rows row_bytes apart; the box lies inside.
void crop_resize(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                 std::int64_t height, Flip flip, ImageScratch& scratch, Planes& out);
/// The same, but computes only the pixels `part` of the unmirrored result: [part.height, part.width].
void crop_resize_part(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                      std::int64_t height, const Box& part, ImageScratch& scratch, Planes& out, Flip flip = Flip::no);

/// torchvision's adjust_* on Pillow images, in place. Factor 1 (hue: 0) changes nothing, except that
/// adjust_hue always converts to 8-bit HSV and back.
void adjust_brightness(Planes& image, float factor);
void adjust_contrast(Planes& image, float factor);
void adjust_saturation(Planes& image, float factor);
/// factor: fraction of a full turn, in [-0.5, 0.5].
void adjust_hue(Planes& image, double factor);
/// Replaces each channel by the luma.
void grey(Planes& image);
/// The box filter that approximates a Gaussian when applied three times: 2 * reach + 1 values of full weight, and one
/// more on either side with far_weight. Weights are times 2^24.
struct BlurBox {
  std::int64_t reach = 0;
  std::uint32_t weight = 0, far_weight = 0;
};
BlurBox blur_box(float sigma);
/// Pillow's GaussianBlur(radius): three extended box blurs across, then three down, rounded to 8 bits after each.
void gaussian_blur(Planes& image, float radius, ImageScratch& scratch);

/// out[(y * width + x) * 3 + c] = (value / 255 - mean[c]) / std[c].
void normalise(const Planes& image, const float mean[3], const float std[3], float* out);
/// out[(y * width + x) * 3 + c] = value / 255.
void to_unit_range(const Planes& image, float* out);

/// Planes to interleaved pixels [height, width, 3].
void to_interleaved(const Planes& image, std::uint8_t* rgb);

}  // namespace seer::kernels
