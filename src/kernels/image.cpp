// SPDX-License-Identifier: Apache-2.0
// Colour, blur and resize, as loops over whole padded planes, which the compiler vectorises.
#include "seer/kernels/image.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

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

// Crop and antialiased resize. Works through the source in strips of 32 rows. A strip is transposed, so that the
// horizontal pass is a weighted sum of whole 32-byte columns. The result is transposed back and added, weighted, to the
// output rows that it touches. Integer sums do not depend on that order, and memory does not grow with the image.

constexpr std::int64_t kStrip = 32;  // rows per strip, and outputs per tile

/// Pillow's coefficients (method.md 4.2) for outputs [begin, begin + count) of `out`, without zeros at the ends.
void make_taps(std::int64_t in, std::int64_t out, std::int64_t begin, std::int64_t count, ImageScratch::Taps& taps) {
  taps.first.clear();
  taps.begin.assign(1, 0);
  taps.weight.clear();
  const auto filter = formula::filter_of(in, out);
  std::vector<double> shares;
  for (std::int64_t x = begin; x < begin + count; ++x) {
    const auto reach = formula::reach_of(filter, in, x);
    shares.clear();
    double sum = 0;
    for (std::int64_t t = reach.low; t < reach.high; ++t) {
      shares.push_back(formula::share_of(filter, reach, t));
      sum += shares.back();
    }
    std::int64_t first = reach.low;
    bool leading = true;
    for (const double share : shares) {
      const std::int32_t fixed = formula::weight_of(share, sum);
      if (leading && fixed == 0) {
        ++first;
        continue;
      }
      leading = false;
      taps.weight.push_back(fixed);
    }
    while (static_cast<std::int64_t>(taps.weight.size()) > taps.begin.back() + 1 && taps.weight.back() == 0)
      taps.weight.pop_back();
    taps.first.push_back(first);
    taps.begin.push_back(static_cast<std::int64_t>(taps.weight.size()));
  }
}

std::int64_t taps_end(const ImageScratch::Taps& taps, std::int64_t output) {
  const auto i = static_cast<std::size_t>(output);
  return taps.first[i] + taps.begin[i + 1] - taps.begin[i];
}

/// sums[j] += weight * values[j], 32 at a time.
inline void add_weighted(std::int32_t* __restrict sums, std::int32_t weight, const std::uint8_t* __restrict values) {
  for (std::int64_t j = 0; j < kStrip; ++j) sums[j] += weight * values[j];
}

/// out[c][r] = in[r][c] for a tile of 32 x 32 bytes.
inline void transpose_tile(const std::uint8_t* __restrict in, std::int64_t in_stride, std::uint8_t* __restrict out,
                           std::int64_t out_stride) {
  for (std::int64_t c = 0; c < kStrip; ++c)
    for (std::int64_t r = 0; r < kStrip; ++r) out[c * out_stride + r] = in[r * in_stride + c];
}

struct Job {
  const std::uint8_t* rgb;  // this channel's byte of the box's first pixel
  std::int64_t row_bytes;
  std::int64_t width, stride;  // of the output
  Flip flip;
};

/// Horizontal pass over rows [top, top + rows) of the box. Writes scratch.strip, [32, stride] bytes.
void horizontal_pass(const Job& job, std::int64_t top, std::int64_t rows, ImageScratch& s) {
  const auto& taps = s.horizontal;
  alignas(64) std::uint8_t tile[kStrip * kStrip] = {}, turned[kStrip * kStrip];
  for (std::int64_t begin = 0; begin < job.width; begin += kStrip) {
    const std::int64_t end = std::min(begin + kStrip, job.width);
    const std::int64_t from = taps.first[static_cast<std::size_t>(begin)], to = taps_end(taps, end - 1);
    // Copies the source columns that this tile needs, each to 32 consecutive bytes.
    if (static_cast<std::int64_t>(s.columns.size()) < (to - from) * kStrip)
      s.columns.resize(static_cast<std::size_t>((to - from) * kStrip));
    for (std::int64_t x = from; x < to; ++x) {
      const std::uint8_t* in = job.rgb + top * job.row_bytes + 3 * x;
      std::uint8_t* const column = s.columns.data() + (x - from) * kStrip;
      for (std::int64_t r = 0; r < rows; ++r) column[r] = in[r * job.row_bytes];
    }
    for (std::int64_t x = begin; x < end; ++x) {
      std::int32_t sums[kStrip];
      std::fill_n(sums, kStrip, formula::kResampleHalf);
      const auto i = static_cast<std::size_t>(x);
      const std::uint8_t* column = s.columns.data() + (taps.first[i] - from) * kStrip;
      for (std::int64_t t = taps.begin[i]; t < taps.begin[i + 1]; ++t, column += kStrip)
        add_weighted(sums, taps.weight[static_cast<std::size_t>(t)], column);
      // If mirrored, fills the tile's columns from the right.
      const std::int64_t place = job.flip == Flip::yes ? end - 1 - x : x - begin;
      for (std::int64_t j = 0; j < kStrip; ++j) tile[place * kStrip + j] = formula::resampled(sums[j]);
    }
    transpose_tile(tile, kStrip, turned, kStrip);
    const std::int64_t left = job.flip == Flip::yes ? job.width - end : begin;
    for (std::int64_t r = 0; r < rows; ++r)
      std::copy_n(turned + r * kStrip, end - begin, s.strip.data() + r * job.stride + left);
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

void to_interleaved(const Planes& image, std::uint8_t* rgb) {
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < image.height; ++y)
      for (std::int64_t x = 0; x < image.width; ++x)
        rgb[(y * image.width + x) * 3 + c] = image.plane(c)[y * image.stride + x];
}

void crop_resize_part(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                      std::int64_t height, const Box& part, ImageScratch& scratch, Planes& out, Flip flip) {
  out.reshape(part.width, part.height);
  make_taps(box.width, width, part.left, part.width, scratch.horizontal);
  make_taps(box.height, height, part.top, part.height, scratch.vertical);
  scratch.strip.resize(static_cast<std::size_t>(kStrip * out.stride));
  scratch.sums.resize(static_cast<std::size_t>(out.plane_bytes()));
  const auto& taps = scratch.vertical;
  const std::int64_t end = taps_end(taps, part.height - 1);
  for (int c = 0; c < 3; ++c) {
    const Job job{rgb + box.top * row_bytes + 3 * box.left + c, row_bytes, part.width, out.stride, flip};
    std::fill(scratch.sums.begin(), scratch.sums.end(), formula::kResampleHalf);
    std::int64_t first_open = 0;  // earlier outputs are complete
    for (std::int64_t top = taps.first[0]; top < end; top += kStrip) {
      const std::int64_t bottom = std::min(top + kStrip, end);
      horizontal_pass(job, top, bottom - top, scratch);
      while (first_open < part.height && taps_end(taps, first_open) <= top) ++first_open;
      for (std::int64_t y = first_open; y < part.height; ++y) {
        const auto i = static_cast<std::size_t>(y);
        if (taps.first[i] >= bottom) break;
        const std::int64_t from = std::max(taps.first[i], top), to = std::min(taps_end(taps, y), bottom);
        const std::int64_t shift = taps.begin[i] - taps.first[i];
        for (std::int64_t x = 0; x < out.stride; x += kStrip) {
          std::int32_t sums[kStrip];
          std::int32_t* const kept = scratch.sums.data() + y * out.stride + x;
          std::copy_n(kept, kStrip, sums);
          for (std::int64_t t = from; t < to; ++t)
            add_weighted(sums, taps.weight[static_cast<std::size_t>(t + shift)],
                         scratch.strip.data() + (t - top) * out.stride + x);
          std::copy_n(sums, kStrip, kept);
        }
      }
    }
    std::uint8_t* const plane = out.plane(c);
    for (std::int64_t i = 0; i < out.plane_bytes(); ++i)
      plane[i] = formula::resampled(scratch.sums[static_cast<std::size_t>(i)]);
  }
}

std::int64_t ImageScratch::bytes() const {
  std::size_t total = columns.capacity() + strip.capacity() + edge.capacity() + 4 * sums.capacity();
  for (const auto* taps : {&horizontal, &vertical})
    total += 8 * (taps->first.capacity() + taps->begin.capacity()) + 4 * taps->weight.capacity();
  return static_cast<std::int64_t>(total);
}

void crop_resize(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                 std::int64_t height, Flip flip, ImageScratch& scratch, Planes& out) {
  crop_resize_part(rgb, row_bytes, box, width, height, {0, 0, width, height}, scratch, out, flip);
}

}  // namespace seer::kernels
