// SPDX-License-Identifier: Apache-2.0
// Colour and blur, as loops over whole padded planes, which the compiler vectorises.
#include "seer/kernels/image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "image_formulas.hpp"

namespace seer::kernels {
namespace {

constexpr std::int64_t kLanes = 32;

template <class Pixel>
void each_byte(Planes& image, const Pixel& pixel) {
  const std::int64_t n = 3 * image.plane_bytes();
  std::uint8_t* const x = image.bytes.data();
  for (std::int64_t i = 0; i < n; ++i) x[i] = pixel(x[i]);
}

/// One output row of the box blur: out[j], j in [0, n), is the weighted sum of row(k)[j] over k = -(l + 1) .. l + 1,
/// with l = box.reach. The caller's row(k) replicates the image's edges. Serves both directions: row(k) is k rows
/// (down) or k pixels (across) away.
template <class Row>
void box_row(const BlurBox& box, std::int64_t n, const Row& row, std::uint8_t* __restrict out) {
  const std::uint8_t* const before = row(-box.reach - 1);
  const std::uint8_t* const after = row(box.reach + 1);
  if (box.reach == 0) {
    const std::uint8_t* const centre = row(0);
    for (std::int64_t j = 0; j < n; ++j)
      out[j] = formula::boxed(centre[j], static_cast<std::uint32_t>(before[j]) + after[j], box.weight, box.far_weight);
    return;
  }
  if (box.reach == 1) {
    const std::uint8_t *const a = row(-1), *const b = row(0), *const c = row(1);
    for (std::int64_t j = 0; j < n; ++j)
      out[j] = formula::boxed(static_cast<std::uint32_t>(a[j]) + b[j] + c[j],
                              static_cast<std::uint32_t>(before[j]) + after[j], box.weight, box.far_weight);
    return;
  }
  std::uint32_t inner[kLanes];
  for (std::int64_t begin = 0; begin < n; begin += kLanes) {
    const std::int64_t m = std::min(kLanes, n - begin);
    std::fill_n(inner, kLanes, 0U);
    for (std::int64_t k = -box.reach; k <= box.reach; ++k) {
      const std::uint8_t* const x = row(k) + begin;
      for (std::int64_t j = 0; j < m; ++j) inner[j] += x[j];
    }
    for (std::int64_t j = 0; j < m; ++j)
      out[begin + j] = formula::boxed(inner[j], static_cast<std::uint32_t>(before[begin + j]) + after[begin + j],
                                      box.weight, box.far_weight);
  }
}

/// Copies each row with its ends repeated, so that shifted reads need no clamping.
void blur_across(Planes& image, const BlurBox& box, std::vector<std::uint8_t>& edge) {
  const std::int64_t margin = box.reach + 1, width = image.width;
  edge.resize(static_cast<std::size_t>(2 * margin + width));
  for (std::int64_t y = 0; y < 3 * image.height; ++y) {
    std::uint8_t* const x = image.bytes.data() + y * image.stride;
    std::memset(edge.data(), x[0], static_cast<std::size_t>(margin));
    std::memcpy(edge.data() + margin, x, static_cast<std::size_t>(width));
    std::memset(edge.data() + margin + width, x[width - 1], static_cast<std::size_t>(margin));
    const std::uint8_t* const centre = edge.data() + margin;
    box_row(
        box, width, [centre](std::int64_t k) { return centre + k; }, x);
  }
}

/// Reads from a copy of the plane, so that results can be written in place.
void blur_down(Planes& image, const BlurBox& box, std::vector<std::uint8_t>& edge) {
  const std::int64_t height = image.height, stride = image.stride;
  edge.resize(static_cast<std::size_t>(image.plane_bytes()));
  for (int c = 0; c < 3; ++c) {
    std::memcpy(edge.data(), image.plane(c), edge.size());
    for (std::int64_t y = 0; y < height; ++y) {
      const std::uint8_t* const in = edge.data();
      const auto row = [in, y, height, stride](std::int64_t k) {
        return in + std::clamp<std::int64_t>(y + k, 0, height - 1) * stride;
      };
      box_row(box, stride, row, image.plane(c) + y * stride);
    }
  }
}

}  // namespace

BlurBox blur_box(float sigma) {
  // Three boxes of real-valued radius have the Gaussian's variance (method.md 4.2). Float where Pillow uses it.
  const float variance = sigma * sigma / 3.0F;
  const float length = static_cast<float>(std::sqrt(12.0 * static_cast<double>(variance) + 1.0));
  const float l = static_cast<float>(std::floor((static_cast<double>(length) - 1.0) / 2.0));
  float a = (2 * l + 1) * (l * (l + 1) - 3 * variance);
  a /= 6 * (variance - (l + 1) * (l + 1));
  const float radius = l + a;
  BlurBox box;
  box.reach = static_cast<std::int64_t>(radius);
  box.weight = static_cast<std::uint32_t>(static_cast<float>(1U << 24) / (radius * 2 + 1));
  box.far_weight = ((1U << 24) - static_cast<std::uint32_t>(box.reach * 2 + 1) * box.weight) / 2;
  return box;
}

void Planes::reshape(std::int64_t new_width, std::int64_t new_height) {
  width = new_width;
  height = new_height;
  stride = (new_width + kLanes - 1) / kLanes * kLanes;
  bytes.resize(static_cast<std::size_t>(3 * height * stride));
}

void adjust_brightness(Planes& image, float factor) {
  each_byte(image, [factor](std::uint8_t x) { return formula::blend(0, x, factor); });
}

void adjust_contrast(Planes& image, float factor) {
  const std::uint8_t *const r = image.plane(0), *const g = image.plane(1), *const b = image.plane(2);
  std::int64_t sum = 0;
  for (std::int64_t y = 0; y < image.height; ++y) {
    std::int32_t row = 0;
    for (std::int64_t i = y * image.stride; i < y * image.stride + image.width; ++i)
      row += formula::luma(r[i], g[i], b[i]);
    sum += row;
  }
  const std::int32_t level = formula::mean_level(sum, image.width * image.height);
  each_byte(image, [factor, level](std::uint8_t x) { return formula::blend(level, x, factor); });
}

void adjust_saturation(Planes& image, float factor) {
  std::uint8_t *const r = image.plane(0), *const g = image.plane(1), *const b = image.plane(2);
  const std::int64_t n = image.plane_bytes();
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t level = formula::luma(r[i], g[i], b[i]);
    r[i] = formula::blend(level, r[i], factor);
    g[i] = formula::blend(level, g[i], factor);
    b[i] = formula::blend(level, b[i], factor);
  }
}

void adjust_hue(Planes& image, double factor) {
  std::uint8_t *r = image.plane(0), *g = image.plane(1), *b = image.plane(2);
  const std::int64_t n = image.plane_bytes();
  const std::int32_t shift = formula::hue_shift(factor);
  // Works in pieces, one loop per step: short loops with few types vectorise. A plane is a whole number of pieces.
  std::int32_t hue[kLanes], saturation[kLanes], value[kLanes], out[3][kLanes];
  for (std::int64_t begin = 0; begin < n; begin += kLanes, r += kLanes, g += kLanes, b += kLanes) {
    for (std::int64_t j = 0; j < kLanes; ++j) {
      out[0][j] = r[j];
      out[1][j] = g[j];
      out[2][j] = b[j];
      value[j] = std::max(std::max(out[0][j], out[1][j]), out[2][j]);
    }
    for (std::int64_t j = 0; j < kLanes; ++j)
      formula::to_hue_saturation(out[0][j], out[1][j], out[2][j], hue[j], saturation[j]);
    for (std::int64_t j = 0; j < kLanes; ++j)
      formula::from_hue_saturation((hue[j] + shift) & 255, saturation[j], value[j], out[0][j], out[1][j], out[2][j]);
    for (std::int64_t j = 0; j < kLanes; ++j) {
      r[j] = static_cast<std::uint8_t>(out[0][j]);
      g[j] = static_cast<std::uint8_t>(out[1][j]);
      b[j] = static_cast<std::uint8_t>(out[2][j]);
    }
  }
}

void grey(Planes& image) {
  std::uint8_t *const r = image.plane(0), *const g = image.plane(1), *const b = image.plane(2);
  const std::int64_t n = image.plane_bytes();
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const auto level = static_cast<std::uint8_t>(formula::luma(r[i], g[i], b[i]));
    r[i] = g[i] = b[i] = level;
  }
}

void gaussian_blur(Planes& image, float radius, ImageScratch& scratch) {
  const BlurBox box = blur_box(radius);
  for (int pass = 0; pass < 3; ++pass) blur_across(image, box, scratch.edge);
  for (int pass = 0; pass < 3; ++pass) blur_down(image, box, scratch.edge);
}

void normalise(const Planes& image, const float mean[3], const float std[3], float* out) {
  const auto [scale, offset] = formula::normalisation(mean, std);
  for (std::int64_t y = 0; y < image.height; ++y) {
    const std::uint8_t *const r = image.plane(0) + y * image.stride, *const g = image.plane(1) + y * image.stride,
                              *const b = image.plane(2) + y * image.stride;
    float* const row = out + y * image.width * 3;
    for (std::int64_t x = 0; x < image.width; ++x) {
      row[3 * x] = static_cast<float>(r[x]) * scale[0] + offset[0];
      row[3 * x + 1] = static_cast<float>(g[x]) * scale[1] + offset[1];
      row[3 * x + 2] = static_cast<float>(b[x]) * scale[2] + offset[2];
    }
  }
}

void to_unit_range(const Planes& image, float* out) {
  const float zero[3] = {0, 0, 0}, one[3] = {1, 1, 1};
  normalise(image, zero, one, out);
}

void from_interleaved(const std::uint8_t* rgb, std::int64_t width, std::int64_t height, Planes& out) {
  out.reshape(width, height);
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < height; ++y)
      for (std::int64_t x = 0; x < width; ++x) out.plane(c)[y * out.stride + x] = rgb[(y * width + x) * 3 + c];
}

void to_interleaved(const Planes& image, std::uint8_t* rgb) {
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < image.height; ++y)
      for (std::int64_t x = 0; x < image.width; ++x)
        rgb[(y * image.width + x) * 3 + c] = image.plane(c)[y * image.stride + x];
}

}  // namespace seer::kernels
