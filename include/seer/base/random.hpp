// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers (Philox 4x32-10, Salmon et al. 2011, from Random123). (seed, purpose, a, b) names a
// stream. The same name gives the same numbers on every rank, thread and run, so resumed and re-partitioned runs see
// the same crops (method.md 6).
#pragma once

#include <array>
#include <cstdint>

namespace seer {

/// What a stream is for: streams of different purposes never overlap.
enum class Purpose : std::uint32_t {
  epoch_order = 1,   ///< a = epoch
  augmentation = 2,  ///< a = global position of the image, b = crop
  parameter = 3,     ///< a = checksum of the parameter's name
  replacement = 4,   ///< a = global position of the bad image, b = attempt
  synthetic = 5,     ///< a = image
  queue = 6,
  rehearsal = 7,
  test = 8,            ///< tests and benches
  recalibration = 9,   ///< which images re-estimate BatchNorm's statistics
  randaugment = 20,    ///< a, b as for augmentation
  erasing = 21,        ///< the same: which rectangle
  erasing_noise = 22,  ///< the same; four draws for each pixel of the crop, in its order
  mixing = 23,         ///< a = update
};

class Random {
 public:
  Random(std::uint64_t seed, Purpose purpose, std::uint64_t a = 0, std::uint32_t b = 0);

  std::uint32_t bits();
  /// Uniform in [0, 1), 53 bits (two draws).
  double uniform();
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  /// Uniform integer in [0, n), n > 0, without bias.
  std::uint64_t below(std::uint64_t n);
  /// Standard normal (Box-Muller: two uniforms give a pair; the second value is kept for the next call).
  double normal();

 private:
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> block_{};
  int used_ = 4;
  bool has_spare_ = false;
  double spare_ = 0;
};

}  // namespace seer
