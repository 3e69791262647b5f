// SPDX-License-Identifier: Apache-2.0
// Weighted k-nearest-neighbour classification (method.md 8.2). The similarity is the dot product (cosine: of
// L2-normalised rows). Each of the k most similar training rows votes for its class with weight exp(similarity /
// temperature). All pairs of k and temperature are answered in one pass over the training rows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/subset.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

/// Training rows that do not vote, for sets that share images.
enum class LeaveOut : std::uint8_t {
  nothing,
  first,  ///< the nearest row: for a set against itself, as DINOv3's skip_first_nn
  same,   ///< rows of images with the same bytes as the test row's
};

struct KnnOptions {
  std::vector<std::int64_t> k = {20};
  std::vector<double> temperature = {0.07};
  bool cosine = true;
  LeaveOut leave_out = LeaveOut::nothing;
  /// Error as require_learnable(); else only a warning, and test images of unknown classes count as wrong: a run that
  /// watches itself must not end because of an image that no longer decodes.
  bool all_known = false;
  FeatureColumns columns = {};     ///< the part of the rows that is compared; width 0: all
  std::int64_t block_rows = 2048;  ///< training rows processed at a time; bounds memory on every rank
};

/// The settings of a published evaluation.
struct KnnProtocol {
  const char* name;
  std::vector<std::int64_t> k;
  double temperature;
  bool cosine;
};
const std::vector<KnnProtocol>& knn_protocols();

/// Votes for this rank's test rows, in their order, for one pair of k and temperature.
struct KnnVotes {
  std::int64_t k = 0;  ///< as requested
  double temperature = 0;
  std::vector<double> votes;            ///< [rows, classes]; scaled by a positive factor per row if exp would overflow
  std::vector<std::int32_t> predicted;  ///< class with most votes; the lowest if several have equally many
};

/// Collective. Each rank classifies its own test rows against the training rows of all ranks, which are sent in blocks.
/// Rows of equal similarity rank in the order of the training set, so the result does not depend on the number of
/// ranks. Training rows without a label or marked bad are ignored; other labels must be below `classes`. If k exceeds
/// the training set, all of its rows vote. Returns the temperatures of the first k, then those of the next.
/// Error(input) for k < 1, temperature <= 0 or different dimensions; Error(numerics) for features that are not finite;
/// Error(file) for LeaveOut::same without checksums.
std::vector<KnnVotes> knn_votes(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                                std::int64_t classes, const KnnOptions& options);

struct KnnScore {
  std::int64_t k = 0;
  double temperature = 0;
  double top1 = 0, top5 = 0;  ///< fractions of the labelled test rows; top5: among the five classes with most votes
  double mean_per_class = 0;  ///< mean of the fractions of the classes that have test rows
  std::vector<std::int32_t> predicted;  ///< for this rank's test rows
};

struct KnnReport {
  std::vector<KnnScore> scores;                             ///< one for each pair, as knn_votes()
  std::int64_t train_rows = 0, test_rows = 0, classes = 0;  ///< rows that have a label and decode
  double largest_class = 0;  ///< fraction of test rows in the largest class: the accuracy of always guessing it
  std::vector<std::string> class_names;  ///< empty: they have none
  std::vector<std::int32_t> truth;       ///< classes of this rank's test rows; -1: left out
};

/// Collective. Labels are equal if their classes have the same name. Error(file) if a set has no labels; see all_known.
/// Holds the votes of one test row at a time.
KnnReport knn_report(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                     const KnnOptions& options);

/// Collective. The rows of some images only, chosen as data::choose_subset() does, from all ranks' rows; each rank
/// keeps its own. Rows without a label and bad ones are never chosen. Error(input), agreed.
FeatureTable few_rows(const comm::Communicator& comm, const FeatureTable& table, const data::SubsetChoice& choice);

/// Collective. Subtracts the mean of the training rows of all ranks from both tables. For raw pixels: their mean colour
/// would otherwise make all rows similar.
void remove_mean(const comm::Communicator& comm, FeatureTable& train, FeatureTable& test);

}  // namespace seer::eval
