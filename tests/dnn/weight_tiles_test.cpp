// SPDX-License-Identifier: Apache-2.0
// The tiles in which a device packs weights, worked through in order, against the definition of both orders.
#include <gtest/gtest.h>

#include <vector>

#include "../../src/dnn/weight_tiles.hpp"
#include "seer/base/half.hpp"

namespace seer::dnn {
namespace {

// Odd widths, several tiles a row, 1x1 and larger kernels, a stem.
const ConvShape kShapes[] = {
    {.c_in = 3, .c_out = 32, .kernel = 3},
    {.c_in = 2054, .c_out = 7},
    {.c_in = 746, .c_out = 746, .kernel = 3, .groups = 2},
    {.c_in = 15, .c_out = 21, .kernel = 3, .groups = 3},
    {.c_in = 16, .c_out = 24, .kernel = 5, .groups = 2},
};

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// Calls of(index in KRSC, index in OIHW), -1 for padding, for each element of KRSC.
template <class Of>
void each_element(const ConvShape& s, bool padded, Of&& of) {
  const PaddedWidths p(s);
  const std::int64_t in = padded ? p.padded_in : p.in, out = padded ? p.padded_out : p.out, area = s.kernel * s.kernel;
  std::int64_t krsc = 0;
  for (std::int64_t g = 0; g < p.groups; ++g)
    for (std::int64_t k = 0; k < out; ++k)
      for (std::int64_t tap = 0; tap < area; ++tap)
        for (std::int64_t c = 0; c < in; ++c)
          of(krsc++, k < p.out && c < p.in ? ((g * p.out + k) * p.in + c) * area + tap : -1);
}

template <class T>
void check(const ConvShape& s, bool padded) {
  const WeightTiles w(s, padded);
  const auto packed_elems = (padded ? PaddedWidths(s).shape(s) : s).weight_elems();
  std::vector<float> oihw(at(s.weight_elems())), tile(at(w.elems()));
  for (std::size_t i = 0; i < oihw.size(); ++i) oihw[i] = static_cast<float>(i % 97) * 0.5F - 20;  // exact in 16 bits
  std::vector<T> krsc(at(packed_elems), T(-99));
  for (std::int64_t t = 0; t < w.count; ++t) {
    const auto part = w.tile(t);
    ASSERT_LE(part.in * w.area, w.elems());
    for (int i = 0; i < part.in * w.area; ++i) WeightTiles::read_oihw(part, i, oihw.data(), tile.data());
    for (int i = 0; i < part.padded * w.area; ++i) w.write_krsc(part, i, tile.data(), krsc.data());
  }
  std::int64_t wrong = 0;
  each_element(s, padded, [&](std::int64_t to, std::int64_t from) {
    if (static_cast<float>(krsc[at(to)]) != (from < 0 ? 0 : oihw[at(from)])) ++wrong;
  });
  EXPECT_EQ(wrong, 0) << "to KRSC, channels " << s.c_in << " padded " << padded;

  for (const bool add : {false, true}) {
    std::vector<float> back(oihw.size(), 1);
    for (std::int64_t t = 0; t < w.count; ++t) {
      const auto part = w.tile(t);
      for (int i = 0; i < part.in * w.area; ++i) w.read_krsc(part, i, krsc.data(), tile.data());
      for (int i = 0; i < part.in * w.area; ++i) WeightTiles::write_oihw(part, i, tile.data(), back.data(), add);
    }
    for (float& v : back) v -= add ? 1 : 0;
    EXPECT_EQ(back, oihw) << "to OIHW, channels " << s.c_in << " padded " << padded << " add " << add;
  }
}

TEST(WeightTiles, MoveEveryElementOnce) {
  for (const auto& shape : kShapes) {
    for (const bool padded : {false, true}) {
      check<float>(shape, padded);
      check<BFloat16>(shape, padded);
      check<Float16>(shape, padded);
    }
  }
}

}  // namespace
}  // namespace seer::dnn
