// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/logistic.hpp"

#include <fmt/format.h>
#include <lbfgs.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <limits>
#include <new>
#include <numeric>
#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/subset.hpp"
#include "seer/kernels/classifier.hpp"

namespace seer::eval {

constexpr std::int64_t kMostFolds = 5;
constexpr double kNever = -1e30, kAlways = 1e30;  // decision values of classes that nothing is known of

struct LogisticRegression::Problem {
  Problem(const comm::Communicator& with, const Examples& rows) : comm(with), train(rows) {}
  const comm::Communicator& comm;
  const Examples& train;
  std::vector<std::size_t> fitted;  ///< the classes that have variables
  std::vector<double> fixed;        ///< for each class its decision value without variables; 0 where it has some
  bool softmax = true;              ///< else one regression for each class
  std::vector<std::int32_t> labels;
  std::vector<std::int8_t> truth;
  kernels::ClassifierShape shape;
  std::vector<double> scores, losses, sums;
  std::unique_ptr<double, decltype(&lbfgs_free)> x{nullptr, lbfgs_free};
  double c = 1;
  std::int64_t iterations = 0;
  std::exception_ptr error;  ///< must not pass through the library's frames

  std::size_t weights() const { return static_cast<std::size_t>(shape.classes * shape.dimension); }
  std::size_t variables() const { return weights() + static_cast<std::size_t>(shape.classes); }
  std::size_t padded() const { return (variables() + 15) / 16 * 16; }  // the library's vector instructions

  double evaluate(const double* at, double* gradient) {
    kernels::linear_scores(shape, train.values.data(), at, at + weights(), scores.data());
    if (softmax)
      kernels::softmax_loss(shape, labels.data(), scores.data(), losses.data());
    else
      kernels::logistic_loss(shape, truth.data(), scores.data(), losses.data());
    kernels::linear_gradient(shape, train.values.data(), scores.data(), sums.data(), sums.data() + weights());
    sums.back() = 0;
    for (const double loss : losses) sums.back() += loss;
    comm.all_reduce(std::span(sums));
    const double n = static_cast<double>(train.all), decay = 1 / (c * n);
    double squares = 0;
    for (std::size_t i = 0; i < weights(); ++i) {
      gradient[i] = sums[i] / n + decay * at[i];
      squares += at[i] * at[i];
    }
    for (std::size_t i = weights(); i < variables(); ++i) gradient[i] = sums[i] / n;
    return sums.back() / n + decay / 2 * squares;
  }

  LinearModel model() const {
    const auto d = static_cast<std::size_t>(shape.dimension), classes = fixed.size();
    LinearModel out{shape.dimension, static_cast<std::int64_t>(classes), std::vector<double>(classes * d, 0.0), fixed};
    const auto put = [&](std::size_t to, std::size_t from, double sign) {
      for (std::size_t j = 0; j < d; ++j) out.weight[to * d + j] = sign * x.get()[from * d + j];
      out.bias[to] = sign * x.get()[weights() + from];
    };
    const bool binomial = !softmax && !train.several;
    for (std::size_t k = 0; k < fitted.size(); ++k) put(fitted[k], binomial ? 0 : k, binomial && k == 0 ? -1 : 1);
    return out;
  }
};

namespace {

double length(std::span<const double> values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

/// True for the codes of a line search that found no better point: where rounding errors end it.
bool line_search_ended(int code) {
  return code == LBFGSERR_OUTOFINTERVAL || code == LBFGSERR_INCORRECT_TMINMAX || code == LBFGSERR_ROUNDING_ERROR ||
         code == LBFGSERR_MINIMUMSTEP || code == LBFGSERR_MAXIMUMSTEP || code == LBFGSERR_MAXIMUMLINESEARCH ||
         code == LBFGSERR_WIDTHTOOSMALL || code == LBFGSERR_INCREASEGRADIENT;
}

}  // namespace

LogisticRegression::LogisticRegression(const comm::Communicator& comm, const Examples& train, TwoClasses two_classes)
    : problem_(new Problem(comm, train)) {
  auto& p = *problem_;
  const auto counts = count_classes(comm, train);
  for (std::size_t c = 0; c < counts.size(); ++c) {
    const bool none = counts[c] == 0, every = train.several && counts[c] == static_cast<std::int64_t>(train.all);
    p.fixed.push_back(none ? kNever : every ? kAlways : 0.0);
    if (!none && !every) p.fitted.push_back(c);
  }
  p.softmax = !train.several && (p.fitted.size() != 2 || two_classes == TwoClasses::softmax);
  const auto rows = train.rows();
  p.shape = {static_cast<std::int64_t>(rows), train.dimension, static_cast<std::int64_t>(p.fitted.size())};
  if (train.several) {
    for (std::size_t i = 0; i < rows; ++i)
      for (const auto c : p.fitted) p.truth.push_back(train.truth[i * counts.size() + c]);
  } else if (p.softmax) {
    for (const auto label : train.labels)
      p.labels.push_back(static_cast<std::int32_t>(std::ranges::lower_bound(p.fitted, static_cast<std::size_t>(label)) -
                                                   p.fitted.begin()));
  } else {
    p.shape.classes = 1;
    for (const auto label : train.labels) p.truth.push_back(static_cast<std::size_t>(label) == p.fitted[1] ? 1 : 0);
  }
  ensure(p.padded() < std::numeric_limits<int>::max(), "fewer than 2^31 variables of a logistic regression");
  p.scores.resize(rows * static_cast<std::size_t>(p.shape.classes));
  p.losses.resize(rows);
  p.sums.resize(p.variables() + 1);
  p.x.reset(lbfgs_malloc(static_cast<int>(p.padded())));
  if (p.x == nullptr) throw std::bad_alloc();
  std::fill_n(p.x.get(), p.padded(), 0.0);
}

LogisticRegression::~LogisticRegression() = default;

std::int64_t LogisticRegression::variables() const {
  return static_cast<std::int64_t>(problem_->variables());
}

double LogisticRegression::objective(std::span<const double> variables, double c, std::span<double> gradient) const {
  problem_->c = c;
  return problem_->evaluate(variables.data(), gradient.data());
}

LogisticFit LogisticRegression::fit(double c, const Solver& solver) {
  auto& p = *problem_;
  lbfgs_parameter_t parameters;
  lbfgs_parameter_init(&parameters);
  parameters.m = 10;  // as scipy
  parameters.epsilon = solver.tolerance;
  parameters.max_linesearch = 50;
  const lbfgs_evaluate_t evaluate = [](void* instance, const double* x, double* gradient, int n, double) {
    auto& self = *static_cast<Problem*>(instance);
    std::fill_n(gradient, n, 0.0);  // the padding's; and after an error, a gradient of zero ends the search
    try {
      if (!self.error) return self.evaluate(x, gradient);
    } catch (...) {
      self.error = std::current_exception();
    }
    return 0.0;
  };
  const lbfgs_progress_t count = [](void* instance, const double*, const double*, double, double, double, double, int,
                                    int, int) {
    ++static_cast<Problem*>(instance)->iterations;
    return 0;
  };
  LogisticFit out;
  out.converged = true;
  p.c = c;
  p.iterations = 0;
  if (p.variables() == 0) {  // each class is in all rows or in none
    out.model = p.model();
    return out;
  }
  std::vector<double> gradient(p.padded(), 0.0);
  for (double before = std::numeric_limits<double>::infinity();; before = out.objective) {
    parameters.max_iterations = static_cast<int>(std::max<std::int64_t>(solver.most_iterations - p.iterations, 1));
    const int code = lbfgs(static_cast<int>(p.padded()), p.x.get(), nullptr, evaluate, count, &p, &parameters);
    if (p.error) std::rethrow_exception(p.error);
    out.objective = p.evaluate(p.x.get(), gradient.data());
    out.gradient = length(gradient);
    const bool known = code >= 0 || code == LBFGSERR_MAXIMUMITERATION || line_search_ended(code);
    if (!known || !std::isfinite(out.objective) || !std::isfinite(out.gradient))
      throw Error(ExitCode::numerics,
                  fmt::format("logistic regression with C = {:g} finds no optimum (liblbfgs: {})", c, code),
                  "take other values of C (--c), or features of moderate size")
          .as_agreed();
    out.converged = code != LBFGSERR_MAXIMUMITERATION;
    // A line search also fails where the curvature that it knows is out of date: then begin anew, while that helps.
    const bool flat = out.gradient <= 1e-6 * std::max(1.0, length({p.x.get(), p.padded()}));
    const bool helped = out.objective < before - 1e-10 * std::abs(out.objective);
    if (!line_search_ended(code) || flat || !helped || p.iterations >= solver.most_iterations) break;
  }
  out.iterations = p.iterations;
  out.model = p.model();
  return out;
}

LogisticProtocol logistic_protocol(const std::string& name) {
  LogisticProtocol out;
  out.name = name;
  if (name == "dinov2") {
    for (int i = 0; i < 45; ++i) out.grid.push_back(std::pow(10.0, -6 + 11 * i / 44.0));
    out.solver = {1e-12, 1000};
  } else if (name == "vissl") {
    out.standardised = out.c_per_row = true;
    out.two_classes = TwoClasses::softmax;
    out.grid = {1, 0.1, 0.01, 0.001};
  } else if (name == "sklearn") {
    out.grid = {1};
  } else {
    throw Error(ExitCode::input, fmt::format("unknown protocol \"{}\" of logistic regression", name),
                "choose dinov2, vissl or sklearn")
        .as_agreed();
  }
  return out;
}

namespace {

/// How C is chosen without the test set: the rows that are held out in turn, and that in words.
struct Held {
  std::vector<std::vector<std::uint64_t>> parts = {};
  std::string rule;
};

/// A share of the rows, whatever their classes, if that is a row for each class or more; else folds, in which each
/// class is spread evenly; none if a class has a single row.
Held held_of(const comm::Communicator& comm, const Examples& train, double share, std::uint64_t seed) {
  const auto classes_of = classes_of_all(comm, train);
  auto counts = count_classes(comm, train);
  std::erase(counts, 0);
  const auto fewest = *std::ranges::min_element(counts);
  if (fewest < 2) return {.rule = "none, as a class has one training image: the C nearest to 1"};
  std::vector<std::uint64_t> held, order(train.all);
  comm::agree(comm, "holding out training rows", [&] {
    data::Targets all;
    for (std::uint64_t i = 0; i < train.all; ++i) all.add(std::array<std::int32_t, 1>{0});
    held = data::choose_subset(all, 1, {.fraction = share, .seed = seed});
    if (held.size() == train.all)
      throw Error(ExitCode::input,
                  fmt::format("{}: holding out {} of {} rows leaves none", train.name, held.size(), train.all),
                  "give more images, or one C with --c");
  });
  if (held.size() >= counts.size())
    return {{held}, fmt::format("best on {:g} % of the training rows, held out, then fitted on all", 100 * share)};
  const auto folds = static_cast<std::size_t>(std::min<std::int64_t>(kMostFolds, fewest));
  Held out{std::vector<std::vector<std::uint64_t>>(folds),
           fmt::format("best in {}-fold cross-validation, as {:g} % of the training rows are fewer than classes, then "
                       "fitted on all",
                       folds, 100 * share)};
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(
      order, {}, [&](std::uint64_t i) { return classes_of.of(i).empty() ? std::int32_t{-1} : classes_of.of(i)[0]; });
  for (std::size_t i = 0; i < order.size(); ++i) out.parts[i % folds].push_back(order[i]);
  for (auto& part : out.parts) std::ranges::sort(part);
  return out;
}

constexpr double kQuiet_s = 10;  // a short search prints only its result

/// One draw: `train` holds its rows.
std::vector<DrawResult> probe(const comm::Communicator& comm, Examples train, const Examples& test,
                              const LogisticOptions& options, std::uint64_t seed) {
  const auto& protocol = options.protocol;
  const Scale scale = protocol.standardised ? standardise(comm, train) : Scale();
  const Clock clock;
  const auto fit = [&](LogisticRegression& regression, double value, const Examples& on, DrawResult& out) {
    auto result = regression.fit(protocol.c_per_row ? static_cast<double>(on.all) / value : value, protocol.solver);
    if (!result.converged) ++out.unconverged;
    if (clock.seconds() > kQuiet_s)
      log::progress(
          fmt::format("logistic regression on {} rows: {:g} fitted, {} iterations", on.all, value, result.iterations));
    return std::move(result.model);
  };
  DrawResult chosen;
  chosen.train_images = train.all;
  chosen.c = {protocol.grid.front()};
  const bool choose = protocol.grid.size() > 1;
  if (choose && !options.best_on_test) {
    auto [parts, rule] = held_of(comm, train, options.held_out, seed);
    std::vector<double> merits(protocol.grid.size(), 0.0);
    for (std::size_t g = 0; g < merits.size() && parts.empty(); ++g)
      merits[g] = -std::abs(
          std::log(protocol.c_per_row ? static_cast<double>(train.all) / protocol.grid[g] : protocol.grid[g]));
    for (const auto& held : parts) {
      std::vector<std::uint64_t> rest;
      for (std::uint64_t i = 0; i < train.all; ++i)
        if (!std::ranges::binary_search(held, i)) rest.push_back(i);
      const auto part = subset(comm, train, rest), judged = subset(comm, train, held);
      LogisticRegression regression(comm, part, protocol.two_classes);
      for (std::size_t g = 0; g < merits.size(); ++g)
        merits[g] += judge(comm, fit(regression, protocol.grid[g], part, chosen), judged, false).choice(train.several) /
                     static_cast<double>(parts.size());
    }
    const auto best = std::ranges::max_element(merits);
    chosen.c = {protocol.grid[static_cast<std::size_t>(best - merits.begin())]};
    chosen.choice = parts.empty() ? 0 : *best;
    chosen.selection = std::move(rule);
  }
  LogisticRegression regression(comm, train, protocol.two_classes);
  std::vector<DrawResult> out;
  for (const double value : choose&& options.best_on_test ? protocol.grid : chosen.c) {
    DrawResult result = chosen;
    result.c = {value};
    result.model = fit(regression, value, train, result);
    scale.fold(result.model);
    result.figures = judge(comm, result.model, test, true);
    if (choose && options.best_on_test) result.choice = result.figures.choice(train.several);
    out.push_back(std::move(result));
  }
  return out;
}

}  // namespace

std::vector<ProbeRow> logistic_probe(const comm::Communicator& comm, const Examples& train, const Examples& test,
                                     const LogisticOptions& options, const Sizes& sizes) {
  const auto classes_of = classes_of_all(comm, train);
  return over_draws(sizes, train.several, [&](const Size& size, std::uint64_t seed) {
    if (size.per_class == 0 && size.fraction == 1) return probe(comm, train, test, options, seed);
    std::vector<std::uint64_t> chosen;
    comm::agree(comm, "drawing training images", [&] {
      chosen =
          data::choose_subset(classes_of, static_cast<std::int64_t>(train.classes.size()),
                              {.fraction = size.fraction, .per_class = size.per_class, .seed = seed}, train.classes);
    });
    return probe(comm, subset(comm, train, chosen), test, options, seed);
  });
}

}  // namespace seer::eval
