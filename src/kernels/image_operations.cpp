// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/image_operations.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "image_formulas.hpp"

namespace seer::kernels {
namespace {

using Table = std::array<std::uint8_t, 256>;
using Histogram = std::array<std::int64_t, 256>;

std::uint8_t byte_of(std::int64_t value) {
  return static_cast<std::uint8_t>(std::clamp<std::int64_t>(value, 0, 255));
}

/// Replaces each value v of channel c by table_of(c)[v].
template <class TableOf>
void look_up(Planes& image, const TableOf& table_of) {
  for (int c = 0; c < 3; ++c) {
    const Table table = table_of(c);
    std::uint8_t* const x = image.plane(c);
    for (std::int64_t i = 0; i < image.plane_bytes(); ++i) x[i] = table[x[i]];
  }
}

template <class Value>
void replace(Planes& image, const Value& value) {
  Table table;
  for (int v = 0; v < 256; ++v) table[static_cast<std::size_t>(v)] = byte_of(value(v));
  look_up(image, [&](int) { return table; });
}

Histogram histogram(const Planes& image, int channel) {
  Histogram counts{};
  for (std::int64_t y = 0; y < image.height; ++y) {
    const std::uint8_t* const row = image.plane(channel) + y * image.stride;
    for (std::int64_t x = 0; x < image.width; ++x) ++counts[row[x]];
  }
  return counts;
}

Table unchanged() {
  Table table;
  for (std::size_t v = 0; v < 256; ++v) table[v] = static_cast<std::uint8_t>(v);
  return table;
}

/// Stretches each channel's values over the whole range.
Table stretched(const Histogram& counts) {
  const auto used = [](std::int64_t count) { return count > 0; };
  const auto low = std::ranges::find_if(counts, used) - counts.begin();
  const auto high = 255 - (std::find_if(counts.rbegin(), counts.rend(), used) - counts.rbegin());
  Table table = unchanged();
  if (high <= low) return table;
  const double scale = 255.0 / static_cast<double>(high - low), offset = -static_cast<double>(low) * scale;
  for (std::size_t v = 0; v < 256; ++v)
    table[v] = byte_of(static_cast<std::int64_t>(static_cast<double>(v) * scale + offset));
  return table;
}

/// Makes the histogram even.
Table equalized(const Histogram& counts) {
  Table table = unchanged();
  const auto last = std::find_if(counts.rbegin(), counts.rend(), [](std::int64_t count) { return count > 0; });
  std::int64_t sum = -*last;
  for (const auto count : counts) sum += count;
  const std::int64_t step = sum / 255;
  if (step == 0) return table;
  std::int64_t n = step / 2;
  for (std::size_t v = 0; v < 256; ++v) {
    table[v] = byte_of(n / step);
    n += counts[v];
  }
  return table;
}

/// Copies the image, so that results can be written in place. Returns the copy of a channel.
const std::uint8_t* copied(const Planes& image, ImageScratch& scratch, int channel) {
  if (channel == 0) scratch.edge.assign(image.bytes.begin(), image.bytes.end());
  return scratch.edge.data() + channel * image.plane_bytes();
}

/// Blends with the mean of the neighbourhood, in which a pixel counts five times. Pixels at the edges stay.
void sharpen(Planes& image, float factor, ImageScratch& scratch) {
  const std::int64_t stride = image.stride;
  for (int c = 0; c < 3; ++c) {
    const std::uint8_t* const in = copied(image, scratch, c);
    std::uint8_t* const out = image.plane(c);
    for (std::int64_t y = 1; y + 1 < image.height; ++y) {
      for (std::int64_t i = y * stride + 1; i < y * stride + image.width - 1; ++i) {
        std::int32_t sum = 4 * in[i];
        for (const std::int64_t row : {i - stride, i, i + stride}) sum += in[row - 1] + in[row] + in[row + 1];
        out[i] = formula::blend((2 * sum + 13) / 26, in[i], factor);
      }
    }
  }
}

/// The source of the output's place (x, y) is (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]); pixel (0, 0) has its
/// centre at (0.5, 0.5).
void transform(Planes& image, const std::array<double, 6>& m, const std::array<std::uint8_t, 3>& fill,
               ImageScratch& scratch) {
  const std::int64_t width = image.width, height = image.height;
  for (int c = 0; c < 3; ++c) {
    const std::uint8_t* const in = copied(image, scratch, c);
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        const double at_x = static_cast<double>(x) + 0.5, at_y = static_cast<double>(y) + 0.5;
        const double from_x = m[0] * at_x + m[1] * at_y + m[2], from_y = m[3] * at_x + m[4] * at_y + m[5];
        std::uint8_t& out = image.plane(c)[y * image.stride + x];
        out = fill[static_cast<std::size_t>(c)];
        if (from_x < 0 || from_x >= static_cast<double>(width) || from_y < 0 || from_y >= static_cast<double>(height))
          continue;
        const double left = std::floor(from_x - 0.5), top = std::floor(from_y - 0.5);
        const double right_share = from_x - 0.5 - left, low_share = from_y - 0.5 - top;
        const auto x0 = static_cast<std::int64_t>(left), y0 = static_cast<std::int64_t>(top);
        const std::int64_t a = std::max<std::int64_t>(x0, 0), b = std::min(x0 + 1, width - 1);
        const auto row = [&](std::int64_t r) {
          const std::uint8_t* const line = in + r * image.stride;
          return static_cast<double>(line[a]) +
                 (static_cast<double>(line[b]) - static_cast<double>(line[a])) * right_share;
        };
        const double upper = row(std::max<std::int64_t>(y0, 0)), lower = row(std::min(y0 + 1, height - 1));
        out = static_cast<std::uint8_t>(upper + (lower - upper) * low_share);
      }
    }
  }
}

/// Pillow's rotation about the centre: the angle is brought to [0, 360), the matrix rounded to 15 decimal places.
std::array<double, 6> rotation(double degrees, std::int64_t width, std::int64_t height) {
  const double angle = -(degrees - 360.0 * std::floor(degrees / 360.0)) * (std::numbers::pi / 180.0);
  const auto rounded = [](double value) { return std::round(value * 1e15) / 1e15; };
  const double cosine = rounded(std::cos(angle)), sine = rounded(std::sin(angle));
  const double x = static_cast<double>(width) / 2.0, y = static_cast<double>(height) / 2.0;
  return {cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y};
}

}  // namespace

void apply(Operation operation, double argument, const std::array<std::uint8_t, 3>& fill, ImageScratch& scratch,
           Planes& image) {
  const auto factor = static_cast<float>(argument);
  const auto whole = static_cast<std::int32_t>(argument);
  const auto move = [&](const std::array<double, 6>& m) { transform(image, m, fill, scratch); };
  switch (operation) {
    case Operation::auto_contrast:
      return look_up(image, [&](int c) { return stretched(histogram(image, c)); });
    case Operation::equalize:
      return look_up(image, [&](int c) { return equalized(histogram(image, c)); });
    case Operation::invert:
      return replace(image, [](int v) { return 255 - v; });
    case Operation::rotate:
      return move(rotation(argument, image.width, image.height));
    case Operation::posterize:
      return replace(image, [&](int v) { return v >> (8 - whole) << (8 - whole); });
    case Operation::solarize:
      return replace(image, [&](int v) { return v < argument ? v : 255 - v; });
    case Operation::solarize_add:
      return replace(image, [&](int v) { return v < 128 ? v + whole : v; });
    case Operation::color:
      return adjust_saturation(image, factor);
    case Operation::contrast:
      return adjust_contrast(image, factor);
    case Operation::brightness:
      return adjust_brightness(image, factor);
    case Operation::sharpness:
      return sharpen(image, factor, scratch);
    case Operation::shear_x:
      return move({1, argument, 0, 0, 1, 0});
    case Operation::shear_y:
      return move({1, 0, 0, argument, 1, 0});
    case Operation::translate_x:
      return move({1, 0, argument * static_cast<double>(image.width), 0, 1, 0});
    case Operation::translate_y:
      return move({1, 0, 0, 0, 1, argument * static_cast<double>(image.height)});
  }
}

}  // namespace seer::kernels
