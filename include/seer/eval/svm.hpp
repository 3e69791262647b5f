// SPDX-License-Identifier: Apache-2.0
// Linear support vector machines on frozen features, one for each class against all others (method.md 8.6; VISSL's
// protocol for VOC07): squared hinge loss, L2 penalty, dual coordinate descent of liblinear.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/examples.hpp"

namespace seer::eval {

struct SvmOptions {
  std::vector<double> costs = {0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000};
  std::int64_t folds = 3;
  double tolerance = 1e-4;
  double positive_weight = 2;  ///< of the loss of positive rows; that of negative ones is 1
  /// True: the cost is the one best on the test set, the same for all classes, as VISSL's low-shot protocol. Else each
  /// class takes the cost with the best cross-validated average precision.
  bool best_on_test = false;
};

/// Which rows train which class: [classes, rows], 1 positive, -1 negative, 0 not used.
struct Signs {
  std::size_t rows = 0;
  std::vector<std::int8_t> values;
  std::span<const std::int8_t> of(std::size_t c) const { return std::span(values).subspan(c * rows, rows); }
  bool uses(std::size_t row) const;  ///< whether some class does
};
/// All rows: positive for their own classes, negative for the others.
Signs all_signs(const data::Targets& classes_of, std::size_t classes);
/// For each class `positives` of its rows and (classes - 1) x `positives` of the others, chosen by seed, as VISSL's
/// samples of VOC07. Error(input): too few.
Signs drawn_signs(const Signs& whole, const std::vector<std::string>& classes, std::int64_t positives,
                  std::uint64_t seed);

/// The fold, of 0 to folds - 1, in which each row is held out; rows without a sign: -1. As scikit-learn's
/// StratifiedKFold without shuffling: each sign's rows go to the folds in order.
std::vector<std::int32_t> stratified_folds(std::span<const std::int8_t> signs, std::int64_t folds);

/// The step-wise area under precision over recall, rows of equal score together: scikit-learn's
/// average_precision_score. `signs`: 1 positive, else negative.
double step_precision(std::span<const double> scores, std::span<const std::int8_t> signs);

/// The rows of all ranks that some class uses, on every rank: 16 bytes for each value.
class SvmTrainer {
 public:
  /// Collective. `signs`: of the examples of all ranks.
  SvmTrainer(const comm::Communicator& comm, const Examples& train, Signs signs, const SvmOptions& options);
  ~SvmTrainer();
  /// The folds of a class: as its options say, but no more than it has rows of each sign. Below 2: it is not validated.
  std::int64_t folds_of_class(std::size_t c) const;
  /// Collective. Mean average precision over the folds, [classes, costs]; 0 for classes that are not validated. Fits
  /// are shared out to the ranks.
  std::vector<double> cross_validate();
  /// Collective. One machine for each class on all its rows; classes are shared out to the ranks. The result does not
  /// depend on the number of ranks.
  LinearModel fit(std::span<const double> cost_of_class);
  /// Fits of this rank that dual coordinate descent did not finish in liblinear's limit of iterations and that Newton's
  /// method did instead; over all ranks. Collective.
  std::int64_t unfinished() const;

 private:
  struct Rows;
  std::unique_ptr<Rows> rows_;
};

/// Collective. Rows of both sets must have been normalised (normalise_rows). One result for each size of training set;
/// with several classes an image, sizes per class take drawn_signs(), else they take the same images for all classes.
std::vector<ProbeRow> svm_probe(const comm::Communicator& comm, const Examples& train, const Examples& test,
                                const SvmOptions& options, const Sizes& sizes);

}  // namespace seer::eval
