// SPDX-License-Identifier: Apache-2.0
// What a classifier on frozen features is trained on and tested with (method.md 8.5), and the linear model that
// results.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::eval {

/// Images that decode and have a class (none where images may have several): this rank's, in the order of the data set,
/// in double precision.
struct Examples {
  std::string name;  ///< of the set, for messages
  std::int64_t dimension = 0;
  std::vector<std::string> classes;  ///< their names; "0", "1", ... where the set names none
  bool several = false;              ///< images may have several classes
  std::uint64_t first = 0, all = 0;  ///< position of this rank's first row among those of all ranks; their number
  std::vector<double> values;        ///< [rows, dimension]
  std::vector<std::int32_t> labels;  ///< the class; with several classes the first one, or -1
  std::vector<std::int8_t>
      truth;  ///< with several classes [rows, classes]: 1 present, 0 absent, -1 left out; else empty
  std::vector<std::size_t> table_rows;  ///< of each row in the table that it comes from; empty in a subset

  std::size_t rows() const { return labels.size(); }
  std::size_t width() const { return static_cast<std::size_t>(dimension); }
};

/// A training set and a test set with the same features and classes.
struct ExamplePair {
  Examples train, test;
};

/// Collective. The examples of two tables, of one feature's columns (those of all features if `columns` is empty: width
/// 0). The classes are those of the training set by name. Error(file): a set without labels, one class only, test
/// images of a class without a training image. Error(numerics): features that are not finite, training rows that are
/// all equal. Error(input): different dimensions, fewer training images than ranks. All are agreed.
ExamplePair make_examples(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                          const FeatureColumns& columns);

struct LinearModel;
/// What standardise() did to each column.
struct Scale {
  std::vector<double> mean, deviation;
  /// Makes a model of standardised rows one of the rows as they were. Does nothing if empty.
  void fold(LinearModel& model) const;
};
/// Collective. Subtracts the mean of the rows of all ranks and divides by their deviation (population; 1 for a constant
/// column), as scikit-learn's StandardScaler.
Scale standardise(const comm::Communicator& comm, Examples& examples);
/// Divides each row by (its length + 1e-5), as VISSL.
void normalise_rows(Examples& examples);

/// Collective. The classes of all ranks' examples, on every rank; or those left out (`truth` -1).
data::Targets classes_of_all(const comm::Communicator& comm, const Examples& examples, std::int8_t truth = 1);
/// Collective. The examples at these positions (ascending) among those of all ranks.
Examples subset(const comm::Communicator& comm, const Examples& examples, std::span<const std::uint64_t> chosen);
/// Error(input) if there are fewer images than ranks.
void require_enough(const comm::Communicator& comm, std::uint64_t images);
/// Collective. Training examples of each class, over all ranks.
std::vector<std::int64_t> count_classes(const comm::Communicator& comm, const Examples& examples);

/// Decision values: weight [classes, dimension] times a row, plus bias [classes].
struct LinearModel {
  std::int64_t dimension = 0, classes = 0;
  std::vector<double> weight, bias;
  /// Those of consecutive rows [first, first + count) of the examples: [count, classes].
  std::vector<float> scores(const Examples& examples, std::size_t first, std::size_t count) const;
};

/// How good a model is on a set.
struct Figures {
  Accuracy accuracy;        ///< with one class an image
  MeanPrecision precision;  ///< if asked for
  /// What a model is chosen by: mean average precision with several classes, else top-1.
  double choice(bool several) const { return several ? precision.all_points : accuracy.top1; }
};
/// Collective. Average precision is always computed with several classes; else if `with_precision`, which needs 5 bytes
/// for each of this rank's rows and each class.
Figures judge(const comm::Communicator& comm, const LinearModel& model, const Examples& examples, bool with_precision);

/// How many training images are taken, and how often. Both lists empty: all.
struct Sizes {
  std::vector<std::int64_t> per_class = {};
  std::vector<double> fractions = {};
  std::int64_t draws = 1;
  std::uint64_t seed = 0;   ///< draw i takes seed + i
  bool population = false;  ///< deviations over draws: see spread_of()
};

/// A line of the result: one feature, one number of training images. Means over draws, in fractions.
struct ProbeRow {
  double fraction = 1;
  std::int64_t per_class = 0;  ///< 0: a fraction
  std::int64_t draws = 1;
  std::uint64_t train_images = 0;  ///< of a draw
  double c = 0;                    ///< chosen; the median over draws and classes
  double choice = 0;               ///< mean of the figure that it was chosen by; 0: nothing was chosen
  double top1 = 0, top5 = 0, mean_per_class = 0, all_points = 0, eleven_points = 0;
  double top1_deviation = 0, all_points_deviation = 0;  ///< over draws
  std::int64_t unconverged = 0;                         ///< fits that ended at the limit of iterations, of all draws
  std::string selection;                                ///< how c was chosen, if the draws say so
  LinearModel model;                                    ///< of the last draw
};

/// What one draw gave.
struct DrawResult {
  std::uint64_t train_images = 0;
  std::vector<double> c;  ///< for each class, or one for all
  double choice = 0;
  Figures figures;
  std::int64_t unconverged = 0;
  LinearModel model;
  std::string selection = {};  ///< how c was chosen
};
/// Calls probe(size, seed) for each size and draw, and takes the means. `size`: of a class, or a fraction. The probe
/// returns several results where the best is to be chosen by its mean over draws (that of the choice).
struct Size {
  double fraction = 1;
  std::int64_t per_class = 0;
};
std::vector<ProbeRow> over_draws(
    const Sizes& sizes, bool several,
    const std::function<std::vector<DrawResult>(const Size& size, std::uint64_t seed)>& probe);

}  // namespace seer::eval
