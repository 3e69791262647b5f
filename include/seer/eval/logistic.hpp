// SPDX-License-Identifier: Apache-2.0
// Logistic regression on frozen features by L-BFGS (method.md 8.5): the mean loss of n training rows plus
// |W|^2 / (2 C n), biases not penalised. With several classes an image: one regression for each class.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/eval/examples.hpp"

namespace seer::eval {

/// What the loss of a set with two classes is, one class an image.
enum class TwoClasses : std::uint8_t {
  binomial,  ///< one weight vector, as scikit-learn and cuML
  softmax,   ///< two, as scikit-learn's multi_class="multinomial"
};

struct Solver {
  double tolerance = 1e-4;  ///< ends when |gradient| <= tolerance max(1, |variables|)
  std::int64_t most_iterations = 100;
};

struct LogisticFit {
  LinearModel model;
  double objective = 0, gradient = 0;  ///< at the end; the length of the gradient
  std::int64_t iterations = 0;
  bool converged = false;  ///< to the tolerance, or until rounding errors end the line search
};

/// One training set, several C. Each rank holds its own rows, and computes loss and gradient of these; the sums go to
/// all ranks, which all make the same steps. Every rank needs 8 bytes for each value of its rows, and 24 x 8 bytes for
/// each of the classes x (dimension + 1) variables. The result depends on the number of ranks by rounding only, as far
/// as the tolerance goes.
class LogisticRegression {
 public:
  /// Collective. `train` must outlive this object. A class without an example, or one that all examples have, is left
  /// out: its decision value is -1e30, or 1e30.
  LogisticRegression(const comm::Communicator& comm, const Examples& train, TwoClasses two_classes);
  ~LogisticRegression();
  /// Collective. Starts from the optimum of the last call, else from zero.
  LogisticFit fit(double c, const Solver& solver);

  /// Collective. For tests: objective and gradient at any variables, weights [classes, dimension] before biases.
  double objective(std::span<const double> variables, double c, std::span<double> gradient) const;
  std::int64_t variables() const;

 private:
  struct Problem;
  std::unique_ptr<Problem> problem_;
};

/// Grid of C, preparation and solver of a published protocol.
struct LogisticProtocol {
  std::string name;
  bool standardised = false;
  TwoClasses two_classes = TwoClasses::binomial;
  bool c_per_row = false;  ///< C is the number of training rows divided by the grid's value (lambda)
  std::vector<double> grid;
  Solver solver;
};
/// "dinov2", "vissl" or "sklearn" (method.md 8.5). Error(input) names the three.
LogisticProtocol logistic_protocol(const std::string& name);

struct LogisticOptions {
  LogisticProtocol protocol;
  bool best_on_test = false;  ///< C is the one best on the test set; else see logistic_probe()
  double held_out = 0.1;      ///< share of the training rows
};

/// Collective. For each size of training set, and each draw of it: chooses C (the lowest of equally good ones), fits on
/// all training rows of the draw and tests. C is the best on rows held out; in cross-validation if these were fewer
/// than classes; the nearest to 1 if a class has a single row. ProbeRow::selection says which. With a single C nothing
/// is held out. Error(input), agreed: nothing left.
std::vector<ProbeRow> logistic_probe(const comm::Communicator& comm, const Examples& train, const Examples& test,
                                     const LogisticOptions& options, const Sizes& sizes);

}  // namespace seer::eval
