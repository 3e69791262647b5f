// SPDX-License-Identifier: Apache-2.0
// Figures of classification (method.md 8.3): accuracy where an image has one class, average precision where it may have
// several. Each rank holds the scores of its own images. The figures are the same for any number of ranks, to the bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::eval {

/// A fraction in per cent, to ten decimals: 29 of 100 images are 29, where 100 * 0.29 is 28.999999999999996.
inline double percent(double fraction) {
  return std::round(fraction * 1e12) / 1e10;
}

struct Accuracy {
  std::int64_t images = 0;                        ///< with a label, over all ranks
  double top1 = 0, top5 = 0;                      ///< fractions of the images; 0 if there are none
  double mean_per_class = 0;                      ///< mean over the classes with images of their fraction of top-1
  std::vector<std::int64_t> images_of, right_of;  ///< per class
};

class AccuracyCounter {
 public:
  explicit AccuracyCounter(std::int64_t classes);
  /// scores [rows, classes]; labels -1 are left out. Equal scores: the lower class ranks first. An image whose scores
  /// are not numbers counts as wrong.
  void add(std::span<const float> scores, std::span<const std::int32_t> labels);
  /// Collective.
  Accuracy result(const comm::Communicator& comm) const;

 private:
  std::size_t classes_;
  std::vector<std::int64_t> counts_;  ///< images of each class, top-1 of each class, top-5 of all
};

struct MeanPrecision {
  double all_points = 0;          ///< mean over classes of the area below the envelope of precision over recall
  double eleven_points = 0;       ///< mean over classes of the envelope's mean at recall 0, 0.1, ... 1
  std::vector<double> per_class;  ///< all_points of each class; not a number for a class without a positive
  std::int64_t classes = 0;       ///< with at least one positive: those of the means
};

/// Mean and standard deviation of the figures of several draws.
struct Spread {
  double mean = 0, deviation = 0;
};
/// The deviation is that of the sample (divided by n - 1; 0 of one value), or of the population (divided by n).
Spread spread_of(std::span<const double> values, bool population = false);

/// Collective. scores [rows, classes] of this rank; truth the same shape: 1 present, 0 absent, -1 left out. Images of
/// equal score are one point of the curve. Sends the scores of the positives alone. Error(numerics), agreed: a score is
/// not finite.
MeanPrecision mean_average_precision(const comm::Communicator& comm, std::span<const float> scores,
                                     std::span<const std::int8_t> truth, std::int64_t classes);

}  // namespace seer::eval
