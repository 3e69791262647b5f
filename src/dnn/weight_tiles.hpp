// SPDX-License-Identifier: Apache-2.0
// Weights in two orders: OIHW floats, as parameters are stored, and KRSC, as cuDNN's engines read them and leave their
// gradients: any type, the channels of a group perhaps filled up with zeros. They move in tiles of one output channel
// and some input channels, which lie together in OIHW. Here is all but the launch, so that the host's tests cover it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "padded_widths.hpp"

#if defined(__CUDACC__)
#define SEER_BOTH __host__ __device__
#else
#define SEER_BOTH
#endif

namespace seer::dnn {

struct WeightTiles {
  int in, out, padded_in, padded_out;  ///< channels per group
  int area;                            ///< R * S
  int channels;                        ///< most input channels of a tile
  std::int64_t count;                  ///< tiles

  WeightTiles(const ConvShape& shape, bool padded) {
    const PaddedWidths p(shape);
    in = static_cast<int>(p.in);
    out = static_cast<int>(p.out);
    padded_in = padded ? static_cast<int>(p.padded_in) : in;
    padded_out = padded ? static_cast<int>(p.padded_out) : out;
    area = static_cast<int>(shape.kernel * shape.kernel);
    channels = std::max(32, 1024 / area / 8 * 8);
    count = p.groups * padded_out * in_a_row();
  }
  SEER_BOTH int in_a_row() const { return (padded_in + channels - 1) / channels; }
  /// Floats of the memory in which a tile lies between its two steps, as in OIHW.
  int elems() const { return channels * area; }

  struct Tile {
    std::int64_t oihw, krsc;  ///< its first elements
    int in, padded;           ///< its input channels, without and with padding; an output channel of padding has none
  };
  SEER_BOTH Tile tile(std::int64_t index) const {
    const std::int64_t row = index / in_a_row();
    const int first = static_cast<int>(index % in_a_row()) * channels;
    const std::int64_t group = row / padded_out;
    const int channel = static_cast<int>(row % padded_out);
    Tile tile;
    tile.oihw = ((group * out + channel) * in + first) * area;
    tile.krsc = row * area * padded_in + first;
    tile.in = channel < out ? least(channels, in - first) : 0;
    tile.padded = least(channels, padded_in - first);
    return tile;
  }

  // To KRSC: read_oihw for all i < in * area, then write_krsc for all i < padded * area. Back: read_krsc and
  // write_oihw, both for all i < in * area. Neighbouring i are neighbours in memory.
  SEER_BOTH static void read_oihw(const Tile& t, int i, const float* oihw, float* tile) { tile[i] = oihw[t.oihw + i]; }
  template <class T>
  SEER_BOTH void write_krsc(const Tile& t, int i, const float* tile, T* krsc) const {
    const int tap = i / t.padded, c = i % t.padded;
    krsc[t.krsc + std::int64_t{tap} * padded_in + c] = c < t.in ? tile[c * area + tap] : 0.0F;
  }
  template <class T>
  SEER_BOTH void read_krsc(const Tile& t, int i, const T* krsc, float* tile) const {
    const int tap = i / t.in, c = i % t.in;
    tile[c * area + tap] = krsc[t.krsc + std::int64_t{tap} * padded_in + c];
  }
  SEER_BOTH static void write_oihw(const Tile& t, int i, const float* tile, float* oihw, bool add) {
    oihw[t.oihw + i] = add ? oihw[t.oihw + i] + tile[i] : tile[i];
  }

 private:
  SEER_BOTH static int least(int a, int b) { return a < b ? a : b; }
};

}  // namespace seer::dnn
