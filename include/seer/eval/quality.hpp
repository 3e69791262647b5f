// SPDX-License-Identifier: Apache-2.0
// Figures of features that need no labels (method.md 8.7): how many directions they use, how evenly they cover the
// sphere, how little they change between two crops of an image, and how a checkpoint's prototypes are used.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/features.hpp"
#include "seer/eval/moments.hpp"

namespace seer::eval {

struct QualityOptions {
  std::int64_t alpha_first = 10, alpha_last = 100;  ///< alpha: ranks of the eigenvalues that the line is fitted to
  bool lidar = true;          ///< false: views give the alignment only, without d^3 operations and 16 d^2 bytes
  double lidar_delta = 1e-4;  ///< LiDAR: added to the diagonal within classes
  std::int64_t uniformity_images = 2048;  ///< most images whose pairs count
};

/// A figure that cannot be computed is NaN: no views, or too few eigenvalues for alpha.
struct Quality {
  std::int64_t dimension = 0, images = 0;        ///< images that decode
  double rankme = 0, rankme_centred = 0;         ///< of the rows as they are; of the rows minus their mean
  double alpha = 0;                              ///< the eigenvalue of rank i falls as i^-alpha
  std::int64_t alpha_first = 0, alpha_last = 0;  ///< the ranks that were used; fewer if there are not so many
  double deviation = 0, deviation_expected = 0;  ///< of unit rows, mean over dimensions; 1 / sqrt(d)
  double uniformity = 0;
  std::int64_t uniformity_images = 0;
  std::int64_t view_images = 0, views = 0;  ///< images with views, and views of each; 0: none
  double lidar = 0, alignment = 0;
};

/// Collects rows batch by batch. Memory: 8 d^2 bytes, with LiDAR 24 d^2 (on the root twice that while it computes), and
/// uniformity_images * d / ranks floats.
class QualityMeter {
 public:
  /// `images`: that will be added over all ranks; of these, every so many-th is used for uniformity.
  QualityMeter(std::int64_t dimension, std::uint64_t images, const QualityOptions& options = {});

  /// Rows [n, dimension] of images `first`, first + 1, ... of all. Those with bad[i] != 0 are left out. Error(numerics)
  /// for values that are not finite.
  void add(std::span<const float> rows, std::span<const std::uint8_t> bad, std::uint64_t first);
  /// `views` consecutive rows for each image, the same number in every call.
  void add_views(std::span<const float> rows, std::span<const std::uint8_t> bad, std::int64_t views);

  /// Collective, once. The root solves the eigenproblems. Error(input), agreed, for fewer than two images, or fewer
  /// than ranks; Error(numerics), agreed, if all images have the same features.
  Quality result(const comm::Communicator& comm);

 private:
  struct Within;
  double uniformity(const comm::Communicator& comm, Quality& out) const;
  void measure_views(const comm::Communicator& comm, Quality& out);

  std::int64_t dimension_;
  QualityOptions options_;
  std::uint64_t stride_;  ///< every stride-th image is used for uniformity
  Moments rows_;
  std::vector<double> unit_sum_, unit_squares_;  ///< of the rows divided by their lengths
  std::vector<float> sample_;                    ///< rows of length one
  std::optional<Moments> views_, means_;         ///< all views; the mean view of each image
  std::int64_t views_per_image_ = 0, view_images_ = 0;
  double distance_sum_ = 0;  ///< over images, of the mean squared distance of two views of length one
};

/// Which prototype is nearest to how many images.
struct PrototypeUsage {
  std::int64_t prototypes = 0, images = 0;
  double entropy = 0;        ///< of the distribution of images over prototypes, nats; at most ln(prototypes)
  std::int64_t empty = 0;    ///< prototypes that are no image's nearest
  double largest_share = 0;  ///< of the images, that one prototype has
};

class PrototypeMeter {
 public:
  /// `prototypes`: [count, dimension].
  PrototypeMeter(std::vector<float> prototypes, std::int64_t count)
      : count_(count), prototypes_(std::move(prototypes)) {
    images_of_.resize(static_cast<std::size_t>(count), 0);
  }
  /// Embeddings [n, dimension]. Of prototypes with equal scores, the first counts.
  void add(std::span<const float> rows, std::span<const std::uint8_t> bad);
  /// Collective.
  PrototypeUsage result(const comm::Communicator& comm) const;

 private:
  std::int64_t count_;
  std::vector<float> prototypes_, scores_;
  std::vector<std::int64_t> images_of_;
};

/// The figures of every feature of an extractor, in order. Collective. Errors: QualityMeter's, and those of reading and
/// of the network. `view_images` are read with `views`, unless views.count is 0. `options`: one for each feature.
/// `prototypes`: null, or filled with the feature "head", which must be among them.
std::vector<Quality> measure_quality(const comm::Communicator& comm, FeatureExtractor& extractor,
                                     const data::DataSet& images, const data::DataSet& view_images,
                                     const data::EvalOptions& reading, const data::Views& views,
                                     const std::vector<QualityOptions>& options, PrototypeMeter* prototypes);

/// `count` images of a set, evenly over it; all if there are not more.
data::DataSet evenly(const data::DataSet& all, std::uint64_t count);

/// Spectrum figures alone. `eigenvalues` in any order, of the sum of x x^T of `rows` rows.
double effective_rank(std::vector<double> eigenvalues, std::int64_t rows);

struct Alpha {
  double alpha = 0;
  std::int64_t first = 0, last = 0;  ///< ranks of the eigenvalues, from 1
};
/// `eigenvalues`: of the covariance of `rows` rows, in any order.
Alpha power_law(std::vector<double> eigenvalues, std::int64_t rows, const QualityOptions& options);

}  // namespace seer::eval
