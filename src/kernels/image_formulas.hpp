// SPDX-License-Identifier: Apache-2.0
// The arithmetic of one pixel, written once for host loops and device kernels. Types and the order of operations are
// part of the meaning: results must equal Pillow's to the bit (method.md 4.2), so the files that include this are
// compiled without contraction of multiply and add (src/kernels/CMakeLists.txt). All functions are constexpr, so
// device code may call them too, and none calls a library.
#pragma once

#include <cstdint>

namespace seer::kernels::formula {

constexpr int kResampleBits = 22;
constexpr std::int32_t kResampleHalf = 1 << (kResampleBits - 1);
constexpr std::uint32_t kBlurHalf = 1U << 23;

constexpr std::int32_t clip8(std::int32_t value) {
  return value < 0 ? 0 : (value > 255 ? 255 : value);
}

/// Pillow's antialiased triangle filter from `in` pixels to `out` (method.md 4.2). Its scale is computed from floats.
struct Filter {
  double scale, support, inverse;
};
constexpr Filter filter_of(std::int64_t in, std::int64_t out) {
  const double scale = static_cast<double>(static_cast<float>(in)) / static_cast<double>(out);
  const double support = scale < 1.0 ? 1.0 : scale;
  return {scale, support, 1.0 / support};
}

/// Inputs [low, high) that contribute to output x.
struct Reach {
  double centre;
  std::int64_t low, high;
};
constexpr Reach reach_of(const Filter& filter, std::int64_t in, std::int64_t x) {
  const double centre = (static_cast<double>(x) + 0.5) * filter.scale;
  const auto low = static_cast<std::int64_t>(centre - filter.support + 0.5);
  const auto high = static_cast<std::int64_t>(centre + filter.support + 0.5);
  return {centre, low < 0 ? 0 : low, high > in ? in : high};
}

/// Share of input t, before the shares are normalised to a sum of 1.
constexpr double share_of(const Filter& filter, const Reach& reach, std::int64_t t) {
  const double place = (static_cast<double>(t) - reach.centre + 0.5) * filter.inverse;
  const double distance = place < 0.0 ? -place : place;
  return distance < 1.0 ? 1.0 - distance : 0.0;
}

/// Upper bound on the number of inputs of an output.
constexpr std::int64_t most_taps(std::int64_t in, std::int64_t out) {
  const auto most = static_cast<std::int64_t>(2.0 * filter_of(in, out).support) + 2;
  return most < in ? most : in;
}

/// share / sum, times 2^22, where `sum` is the sum of all shares.
constexpr std::int32_t weight_of(double share, double sum) {
  return static_cast<std::int32_t>(0.5 + (sum != 0.0 ? share / sum : share) * static_cast<double>(1 << kResampleBits));
}

/// Rounds a sum of weight * value that started at kResampleHalf; weights are times 2^22.
constexpr std::uint8_t resampled(std::int32_t sum) {
  return static_cast<std::uint8_t>(clip8(sum >> kResampleBits));
}

/// ITU-R 601-2 luma in 16-bit fixed point.
constexpr std::int32_t luma(std::int32_t r, std::int32_t g, std::int32_t b) {
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

/// from + factor * (to - from), truncated and clipped.
constexpr std::uint8_t blend(std::int32_t from, std::int32_t to, float factor) {
  float value = static_cast<float>(from) + factor * static_cast<float>(to - from);
  value = value < 0.0F ? 0.0F : value;
  value = value > 255.0F ? 255.0F : value;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(value));
}

/// The reference level of contrast: the crop's mean luma, rounded half up.
constexpr std::int32_t mean_level(std::int64_t sum, std::int64_t pixels) {
  return static_cast<std::int32_t>(static_cast<double>(sum) / static_cast<double>(pixels) + 0.5);
}

/// Hue shift in 1/255 of a turn, modulo 256.
constexpr std::int32_t hue_shift(double factor) {
  return static_cast<std::int32_t>(factor * 255.0) & 255;
}

/// One box value: `inner` is the sum of the 2l + 1 nearest values, `outer` that of the next one on either side.
constexpr std::uint8_t boxed(std::uint32_t inner, std::uint32_t outer, std::uint32_t weight, std::uint32_t far_weight) {
  return static_cast<std::uint8_t>((inner * weight + outer * far_weight + kBlurHalf) >> 24);
}

/// Hue and saturation of Pillow's 8-bit HSV (the value is the largest channel). Single and double precision alternate
/// as in Pillow. Has no branches, so that loops over it vectorise.
constexpr void to_hue_saturation(std::int32_t r, std::int32_t g, std::int32_t b, std::int32_t& hue,
                                 std::int32_t& saturation) {
  const std::int32_t rg_high = r > g ? r : g, rg_low = r < g ? r : g;
  const std::int32_t high = rg_high > b ? rg_high : b, low = rg_low < b ? rg_low : b;
  const std::int32_t range = high - low;
  const float divisor = static_cast<float>(range > 0 ? range : 1);
  const float rc = static_cast<float>(high - r) / divisor;
  const float gc = static_cast<float>(high - g) / divisor;
  const float bc = static_cast<float>(high - b) / divisor;
  const float if_red = bc - gc;
  const float if_green = static_cast<float>(2.0 + static_cast<double>(rc) - static_cast<double>(bc));
  const float if_blue = static_cast<float>(4.0 + static_cast<double>(gc) - static_cast<double>(rc));
  const float if_not_red = g == high ? if_green : if_blue;
  const float sextant = r == high ? if_red : if_not_red;
  const double turns = static_cast<double>(sextant) / 6.0 + 1.0;  // in (0.8, 2): its fraction is one subtraction
  const float turn = static_cast<float>(turns >= 1.0 ? turns - 1.0 : turns);
  const float strength = static_cast<float>(range) / static_cast<float>(high > 0 ? high : 1);
  const std::int32_t h8 = static_cast<std::int32_t>(static_cast<double>(turn) * 255.0);
  hue = range > 0 ? h8 : 0;
  saturation = static_cast<std::int32_t>(static_cast<double>(strength) * 255.0);
}

/// Back to RGB, rounded half up as Pillow does.
constexpr void from_hue_saturation(std::int32_t hue, std::int32_t saturation, std::int32_t value, std::int32_t& r,
                                   std::int32_t& g, std::int32_t& b) {
  const std::int32_t sector = hue * 6 / 255;  // 6 for hue 255, the same as 0
  const float fraction = static_cast<float>(static_cast<double>(hue) * 6.0 / 255.0 - static_cast<double>(sector));
  const float s = static_cast<float>(static_cast<double>(saturation) / 255.0);
  const double v = static_cast<double>(value);
  const std::int32_t p = static_cast<std::int32_t>(v * (1.0 - static_cast<double>(s)) + 0.5);
  const std::int32_t q = static_cast<std::int32_t>(v * (1.0 - static_cast<double>(s * fraction)) + 0.5);
  const std::int32_t t =
      static_cast<std::int32_t>(v * (1.0 - static_cast<double>(s) * (1.0 - static_cast<double>(fraction))) + 0.5);
  // Masks instead of a switch: sector k selects its column of (v q p p t v), (t v v q p p), (p p t v v q).
  const std::int32_t k0 = -((sector == 0) | (sector == 6)), k1 = -(sector == 1), k2 = -(sector == 2),
                     k3 = -(sector == 3), k4 = -(sector == 4), k5 = -(sector == 5);
  r = ((k0 | k5) & value) | (k1 & q) | ((k2 | k3) & p) | (k4 & t);
  g = (k0 & t) | ((k1 | k2) & value) | (k3 & q) | ((k4 | k5) & p);
  b = ((k0 | k1) & p) | (k2 & t) | ((k3 | k4) & value) | (k5 & q);
}

/// (value / 255 - mean) / std as one product and one sum.
struct Normalisation {
  float scale[3], offset[3];
};
constexpr Normalisation normalisation(const float mean[3], const float std[3]) {
  Normalisation n{};
  for (int c = 0; c < 3; ++c) {
    n.scale[c] = 1.0F / (255.0F * std[c]);
    n.offset[c] = -mean[c] / std[c];
  }
  return n;
}

}  // namespace seer::kernels::formula
