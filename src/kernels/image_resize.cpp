// SPDX-License-Identifier: Apache-2.0
// Crop and antialiased resize. Works through the source in strips of 32 rows. A strip is transposed, so that the
// horizontal pass is a weighted sum of whole 32-byte columns. The result is transposed back and added, weighted, to the
// output rows that it touches. Integer sums do not depend on that order, and memory does not grow with the image.
#include <algorithm>
#include <vector>

#include "image_formulas.hpp"
#include "seer/kernels/image.hpp"

namespace seer::kernels {
namespace {

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

void resize(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width, std::int64_t height,
            const Box& part, Flip flip, ImageScratch& scratch, Planes& out) {
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

}  // namespace

std::int64_t ImageScratch::bytes() const {
  std::size_t total = columns.capacity() + strip.capacity() + edge.capacity() + 4 * sums.capacity();
  for (const auto* taps : {&horizontal, &vertical})
    total += 8 * (taps->first.capacity() + taps->begin.capacity()) + 4 * taps->weight.capacity();
  return static_cast<std::int64_t>(total);
}

void crop_resize(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                 std::int64_t height, Flip flip, ImageScratch& scratch, Planes& out) {
  resize(rgb, row_bytes, box, width, height, {0, 0, width, height}, flip, scratch, out);
}

void crop_resize_part(const std::uint8_t* rgb, std::int64_t row_bytes, const Box& box, std::int64_t width,
                      std::int64_t height, const Box& part, ImageScratch& scratch, Planes& out) {
  resize(rgb, row_bytes, box, width, height, part, Flip::no, scratch, out);
}

}  // namespace seer::kernels
