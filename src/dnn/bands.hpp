// SPDX-License-Identifier: Apache-2.0
// What the direct convolutions share: vectors of eight and of sixteen floats, by the compilers' vector extension; and
// how they go through images: band by band, the next one prefetched.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "direct_conv.hpp"

#pragma GCC diagnostic ignored "-Wpsabi"  // without AVX, vectors by value are inlined and never used (kVectors)

namespace seer::dnn::direct {

using V8 = float __attribute__((vector_size(32)));
using V16 = float __attribute__((vector_size(64)));

#if defined(__AVX512VL__)
constexpr int kRegisters = 32;
constexpr bool kWideVectors = true;  ///< two blocks of channels in one register
#else
constexpr int kRegisters = 16;
constexpr bool kWideVectors = false;
#endif
#if defined(__AVX2__) && defined(__FMA__)
constexpr bool kVectors = true;
#else
constexpr bool kVectors = false;
#endif

// Any float's address will do; each compiles to one unaligned move.
template <class V>
inline void store(float* to, const V& value) {
  std::memcpy(to, &value, sizeof(V));
}
template <class V = V8>
inline V load(const float* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}

/// Prefetches what the next task needs of one array (some channels of some rows of an image), a few cache lines at a
/// time during the present task: the hardware predicts neither the next band of rows nor strided results.
class Ahead {
 public:
  Ahead() = default;
  /// `pixels` pieces of `floats` each, `stride` floats apart, prefetched in `steps` steps.
  Ahead(const float* begin, std::int64_t pixels, std::int64_t floats, std::int64_t stride, std::int64_t steps)
      : pixel_(reinterpret_cast<const char*>(begin)),
        end_(pixel_ + pixels * stride * 4),
        bytes_(floats * 4),
        stride_(stride * 4),
        lines_per_step_(pixels * (bytes_ / kLine + 1) / steps + 1) {}

  template <bool kWrite>
  void step() {
    for (std::int64_t i = 0; i < lines_per_step_ && pixel_ < end_; ++i) {
      __builtin_prefetch(pixel_ + offset_, kWrite, 2);
      offset_ += kLine;
      if (offset_ >= bytes_) {
        offset_ = 0;
        pixel_ += stride_;
      }
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  const char *pixel_ = nullptr, *end_ = nullptr;
  std::int64_t bytes_ = 0, stride_ = 0, offset_ = 0, lines_per_step_ = 0;
};

constexpr std::int64_t kImageInL2 = 384 << 10;       ///< bytes of all channels of a band
constexpr std::int64_t kAllWeightsInL2 = 256 << 10;  ///< bytes

/// Groups or blocks [first, last) of results [unit, unit + count) of image n.
struct Part {
  std::int64_t first, last, n, unit, count;
};

/// The parts of all images, in order. `sets_outside`: all bands of a set of groups or blocks follow each other, so that
/// its weights or sums stay cached. Otherwise all sets of a band follow each other, so that the band is read once.
struct Parts {
  std::int64_t begin = 0, end, set;  ///< groups or blocks [begin, end), `set` of them at a time
  std::int64_t images, units, band;
  bool sets_outside;

  std::int64_t sets() const { return (end - begin + set - 1) / set; }
  std::int64_t bands() const { return (units + band - 1) / band; }
  std::int64_t count() const { return sets() * images * bands(); }
  Part at(std::int64_t index) const {
    const std::int64_t of_set = images * bands();
    const std::int64_t first = begin + (sets_outside ? index / of_set : index % sets()) * set;
    const std::int64_t place = sets_outside ? index % of_set : index / sets();
    const std::int64_t unit = place % bands() * band;
    return {first, std::min(first + set, end), place / bands(), unit, std::min(band, units - unit)};
  }
};

/// False for small activations: they stay in the second-level cache between layers, so prefetching only costs time.
inline bool asks_ahead(const Geometry& g, std::int64_t images) {
  return images * 4 * (g.in_h * g.in_w * g.in_c + g.out_h * g.out_w * g.out_c) > 1 << 20;  // bytes
}

/// Prefetches a part's input. `width`: channels of a group or block.
inline Ahead ahead_of_input(const Geometry& g, const Part& part, const float* input, std::int64_t width,
                            std::int64_t steps) {
  const std::int64_t top = part.unit * g.row_step + g.first_row;
  const std::int64_t first_row = std::max<std::int64_t>(0, top);
  const std::int64_t rows = std::min(top + g.band_rows(part.count), g.in_h) - first_row;
  return {input + (part.n * g.in_h + first_row) * g.in_w * g.in_c + part.first * width, rows * g.in_w,
          (part.last - part.first) * width, g.in_c, steps};
}

}  // namespace seer::dnn::direct
