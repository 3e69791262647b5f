// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/pooling.hpp"

#include <algorithm>
#include <cmath>

namespace seer::eval {
namespace {

/// One image of a map.
struct Map {
  const float* values;
  std::int64_t height, width, channels;
  const float* pixel(std::int64_t y, std::int64_t x) const { return values + (y * width + x) * channels; }
};

/// Adaptive average pooling as in PyTorch: cell i of n covers floor(i h / n) to ceil((i + 1) h / n).
void average(const Map& map, std::int64_t height, std::int64_t width, std::vector<double>& sums, float* out) {
  const auto begin = [](std::int64_t cell, std::int64_t side, std::int64_t cells) { return cell * side / cells; };
  const auto end = [](std::int64_t cell, std::int64_t side, std::int64_t cells) {
    return ((cell + 1) * side + cells - 1) / cells;
  };
  for (std::int64_t i = 0; i < height; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      const auto top = begin(i, map.height, height), bottom = end(i, map.height, height);
      const auto left = begin(j, map.width, width), right = end(j, map.width, width);
      std::ranges::fill(sums, 0.0);
      for (std::int64_t y = top; y < bottom; ++y) {
        for (std::int64_t x = left; x < right; ++x) {
          const float* pixel = map.pixel(y, x);
          for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += static_cast<double>(pixel[c]);
        }
      }
      const auto pixels = static_cast<double>((bottom - top) * (right - left));
      for (const double sum : sums) *out++ = static_cast<float>(sum / pixels);
    }
  }
}

void generalised_mean(const Map& map, double power, std::vector<double>& sums, float* out) {
  constexpr float kLeast = 1e-6F;
  constexpr int kMostProducts = 8;
  const int products = power <= kMostProducts && power == std::floor(power) ? static_cast<int>(power) : 0;
  const auto pixels = map.height * map.width;
  std::ranges::fill(sums, 0.0);
  for (std::int64_t i = 0; i < pixels; ++i) {
    const float* pixel = map.values + i * map.channels;
    for (std::size_t c = 0; c < sums.size(); ++c) {
      const auto x = static_cast<double>(std::max(pixel[c], kLeast));
      double raised = products > 0 ? x : std::pow(x, power);
      for (int p = 1; p < products; ++p) raised *= x;
      sums[c] += raised;
    }
  }
  for (const double sum : sums) *out++ = static_cast<float>(std::pow(sum / static_cast<double>(pixels), 1 / power));
}

void rmac(const Map& map, const std::vector<Region>& regions, std::vector<double>& sums, float* out) {
  std::ranges::fill(sums, 0.0);
  std::vector<float> maxima;
  for (const auto& region : regions) {
    maxima.assign(map.pixel(region.top, region.left), map.pixel(region.top, region.left) + map.channels);
    for (std::int64_t y = region.top; y < region.top + region.side; ++y) {
      for (std::int64_t x = region.left; x < region.left + region.side; ++x) {
        const float* pixel = map.pixel(y, x);
        for (std::size_t c = 0; c < maxima.size(); ++c) maxima[c] = std::max(maxima[c], pixel[c]);
      }
    }
    double square = 0;
    for (const float value : maxima) square += static_cast<double>(value) * static_cast<double>(value);
    const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
    for (std::size_t c = 0; c < sums.size(); ++c) sums[c] += scale * static_cast<double>(maxima[c]);
  }
  for (const double sum : sums) *out++ = static_cast<float>(sum);
}

}  // namespace

std::vector<Region> rmac_regions(std::int64_t height, std::int64_t width, std::int64_t levels) {
  constexpr std::int64_t kMostSteps = 6;
  constexpr float kOverlap = 0.4F;
  const auto shorter = std::min(height, width), longer = std::max(height, width);
  std::int64_t more = 0;  // squares along the longer side beyond those along the shorter one
  float best = 0;
  // In single precision, as the authors' code breaks ties.
  for (std::int64_t steps = 1; longer > shorter && steps <= kMostSteps; ++steps) {
    const float side = static_cast<float>(shorter),
                step = static_cast<float>(longer - shorter) / static_cast<float>(steps);
    const float off = std::abs((side * side - side * step) / (side * side) - kOverlap);
    if (more > 0 && off >= best) continue;
    best = off;
    more = steps;
  }
  std::vector<Region> out;
  for (std::int64_t level = 1; level <= levels; ++level) {
    const auto side = 2 * shorter / (level + 1);
    if (side < 1) break;
    const auto rows = level + (height > width ? more : 0), columns = level + (width > height ? more : 0);
    const auto place = [&](std::int64_t i, std::int64_t count, std::int64_t whole) {
      return count == 1 ? 0 : (whole - side) * i / (count - 1);
    };
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        out.push_back({place(i, rows, height), place(j, columns, width), side});
  }
  return out;
}

std::int64_t pooled_width(const FeaturePart& part, const device::Shape& map) {
  if (part.pool == Pool::map) return map.h * map.w * map.c;
  return part.pool == Pool::average ? part.height * part.width * map.c : map.c;
}

void pool(const FeaturePart& part, const device::Tensor& map, float* out, std::int64_t stride) {
  const auto [n, h, w, c] = map.shape;
  std::vector<double> sums(static_cast<std::size_t>(c));
  const auto regions = part.pool == Pool::rmac ? rmac_regions(h, w, part.levels) : std::vector<Region>();
  for (std::int64_t i = 0; i < n; ++i, out += stride) {
    const Map image{map.f32() + i * h * w * c, h, w, c};
    switch (part.pool) {
      case Pool::average:
        average(image, part.height, part.width, sums, out);
        break;
      case Pool::gem:
        generalised_mean(image, part.power, sums, out);
        break;
      case Pool::rmac:
        rmac(image, regions, sums, out);
        break;
      case Pool::map:
        std::copy_n(image.values, h * w * c, out);
        break;
    }
  }
}

}  // namespace seer::eval
