// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/svm.hpp"

#include <fmt/format.h>
#include <linear.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/subset.hpp"

namespace seer::eval {
namespace {

bool limit_reached = false;  // by the fit that liblinear does now

/// liblinear says only in words that it stopped at its limit.
void note(const char* text) {
  if (std::strstr(text, "reaching max number of iterations") != nullptr) limit_reached = true;
}

std::int64_t count(std::span<const std::int8_t> signs, std::int8_t sign) {
  return std::ranges::count(signs, sign);
}

}  // namespace

bool Signs::uses(std::size_t row) const {
  for (std::size_t at = row; at < values.size(); at += rows)
    if (values[at] != 0) return true;
  return false;
}

Signs all_signs(const data::Targets& classes_of, std::size_t classes) {
  Signs out{classes_of.images(), std::vector<std::int8_t>(classes * classes_of.images(), -1)};
  for (std::size_t i = 0; i < out.rows; ++i)
    for (const auto c : classes_of.of(i)) out.values[static_cast<std::size_t>(c) * out.rows + i] = 1;
  return out;
}

Signs drawn_signs(const Signs& whole, const std::vector<std::string>& classes, std::int64_t positives,
                  std::uint64_t seed) {
  Signs out{whole.rows, std::vector<std::int8_t>(whole.values.size(), 0)};
  for (std::size_t c = 0; c < classes.size(); ++c) {
    for (const std::int8_t sign : {std::int8_t{1}, std::int8_t{-1}}) {
      const auto wanted = positives * (sign == 1 ? 1 : static_cast<std::int64_t>(classes.size()) - 1);
      const auto found = count(whole.of(c), sign);
      if (found < wanted)
        throw Error(ExitCode::input,
                    fmt::format("{} training images {} {}, wanted {} for {} of each class", found,
                                sign == 1 ? "of" : "without", classes[c], wanted, positives),
                    "draw fewer images of each class");
      constexpr std::array<std::int32_t, 1> kOne = {0};
      data::Targets only;
      for (const auto s : whole.of(c)) only.add(std::span(kOne).first(s == sign ? 1 : 0));
      const auto stream = (seed * 2 + (sign == 1 ? 1 : 0)) * classes.size() + c;
      for (const auto i : data::choose_subset(only, 1, {.per_class = wanted, .seed = stream}))
        out.values[c * out.rows + i] = sign;
    }
  }
  return out;
}

std::vector<std::int32_t> stratified_folds(std::span<const std::int8_t> signs, std::int64_t folds) {
  // Rows sorted by sign, the first one's sign before the other, are dealt to the folds in turn. That gives how many
  // rows of a sign each fold gets; it takes them in order.
  const auto used = [](std::int8_t sign) { return sign != 0; };
  const auto first = std::ranges::find_if(signs, used);
  std::vector<std::int32_t> out(signs.size(), -1);
  if (first == signs.end()) return out;
  std::int64_t dealt = 0;
  for (const std::int8_t sign : {*first, static_cast<std::int8_t>(-*first)}) {
    std::vector<std::int64_t> share(static_cast<std::size_t>(folds), 0);
    for (std::int64_t i = 0, n = count(signs, sign); i < n; ++i) ++share[static_cast<std::size_t>(dealt++ % folds)];
    std::size_t fold = 0;
    for (std::size_t i = 0; i < signs.size(); ++i) {
      if (signs[i] != sign) continue;
      while (share[fold] == 0) ++fold;
      --share[fold];
      out[i] = static_cast<std::int32_t>(fold);
    }
  }
  return out;
}

double step_precision(std::span<const double> scores, std::span<const std::int8_t> signs) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, [&](auto a, auto b) { return scores[a] > scores[b]; });
  double area = 0, found = 0, before = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    found += signs[order[i]] == 1 ? 1 : 0;
    if (i + 1 < order.size() && scores[order[i + 1]] == scores[order[i]]) continue;
    area += (found - before) * found / static_cast<double>(i + 1);
    before = found;
  }
  return found > 0 ? area / found : 0;
}

struct SvmTrainer::Rows {
  const comm::Communicator& comm;
  SvmOptions options;
  std::vector<std::string> classes;
  std::size_t dimension;
  Signs signs;                      ///< of the rows below
  std::vector<feature_node> nodes;  ///< [rows, dimension + 2]: the values, 1 for the bias, and the end
  std::int64_t unfinished = 0;

  std::size_t rows() const { return signs.rows; }
  feature_node* row(std::size_t i) { return nodes.data() + i * (dimension + 2); }

  /// The rows with a sign and outside of `fold`, from where `weight` [dimension + 1] comes.
  std::vector<double> fit(std::size_t c, double cost, std::span<const std::int32_t> folds, std::int32_t fold,
                          unsigned seed) {
    std::vector<double> y;
    std::vector<feature_node*> x;
    const auto of_class = signs.of(c);
    for (std::size_t i = 0; i < rows(); ++i) {
      if (of_class[i] == 0 || (fold >= 0 && folds[i] == fold)) continue;
      y.push_back(of_class[i]);
      x.push_back(row(i));
    }
    std::array<int, 2> labels = {1, -1};
    std::array<double, 2> weights = {options.positive_weight, 1};
    const ::problem problem{static_cast<int>(y.size()), static_cast<int>(dimension + 1), y.data(), x.data(), 1};
    ::parameter parameter{L2R_L2LOSS_SVC_DUAL, options.tolerance, cost, 2, labels.data(), weights.data(), 0.1, nullptr};
    ::model* model = nullptr;
    limit_reached = false;
    std::srand(seed);  // liblinear takes the order of its steps from rand()
    model = ::train(&problem, &parameter);
    if (limit_reached) {  // as later versions of liblinear do
      ++unfinished;
      ::free_and_destroy_model(&model);
      parameter.solver_type = L2R_L2LOSS_SVC;
      model = ::train(&problem, &parameter);
    }
    std::vector<double> weight(model->w, model->w + dimension + 1);
    ::free_and_destroy_model(&model);
    return weight;
  }

  /// Average precision on the rows of one fold by a machine trained on the others.
  double precision(std::size_t c, std::size_t cost, std::span<const std::int32_t> folds, std::int32_t fold) {
    const auto seed =
        static_cast<unsigned>(((c * options.costs.size()) + cost) * 64 + static_cast<std::size_t>(fold) + 1);
    const auto weight = fit(c, options.costs[cost], folds, fold, seed);
    std::vector<double> scores;
    std::vector<std::int8_t> truth;
    for (std::size_t i = 0; i < rows(); ++i) {
      if (folds[i] != fold) continue;
      double sum = weight[dimension];
      for (std::size_t j = 0; j < dimension; ++j) sum += weight[j] * row(i)[j].value;
      scores.push_back(sum);
      truth.push_back(signs.of(c)[i]);
    }
    return step_precision(scores, truth);
  }
};

SvmTrainer::SvmTrainer(const comm::Communicator& comm, const Examples& train, Signs signs, const SvmOptions& options)
    : rows_(new Rows{comm, options, train.classes, train.width(), {}, {}}) {
  constexpr std::size_t kBlockRows = 1024;
  auto& r = *rows_;
  ::set_print_string_function(note);
  std::vector<std::uint64_t> used;
  for (std::size_t i = 0; i < signs.rows; ++i)
    if (signs.uses(i)) used.push_back(i);
  r.signs.rows = used.size();
  for (std::size_t c = 0; c < r.classes.size(); ++c)
    for (const auto i : used) r.signs.values.push_back(signs.of(c)[i]);
  comm::agree(comm, "memory of the support vector machines", [&] { r.nodes.resize(used.size() * (r.dimension + 2)); });
  std::vector<double> block;
  const auto firsts = comm.all_gather(static_cast<std::int64_t>(train.first));
  const auto owner_end = [&](int owner) {
    return owner + 1 < comm.size() ? static_cast<std::uint64_t>(firsts[static_cast<std::size_t>(owner) + 1])
                                   : train.all;
  };
  int owner = 0;
  for (std::size_t begin = 0, end; begin < used.size(); begin = end) {
    while (owner_end(owner) <= used[begin]) ++owner;
    for (end = begin; end < used.size() && end - begin < kBlockRows && used[end] < owner_end(owner);) ++end;
    block.resize((end - begin) * r.dimension);
    for (std::size_t i = begin; comm.rank() == owner && i < end; ++i)
      std::copy_n(train.values.data() + (used[i] - train.first) * r.dimension, r.dimension,
                  block.data() + (i - begin) * r.dimension);
    comm.broadcast(block.data(), block.size() * sizeof(double), owner);
    for (std::size_t i = begin; i < end; ++i) {
      auto* node = r.row(i);
      for (std::size_t j = 0; j < r.dimension; ++j)
        *node++ = {static_cast<int>(j + 1), block[(i - begin) * r.dimension + j]};
      *node++ = {static_cast<int>(r.dimension + 1), 1};
      *node = {-1, 0};
    }
  }
}

SvmTrainer::~SvmTrainer() = default;

std::int64_t SvmTrainer::unfinished() const {
  return rows_->comm.all_reduce(rows_->unfinished, comm::Op::sum);
}

std::int64_t SvmTrainer::folds_of_class(std::size_t c) const {
  const auto signs = rows_->signs.of(c);
  return std::min({rows_->options.folds, count(signs, 1), count(signs, -1)});
}

std::vector<double> SvmTrainer::cross_validate() {
  auto& r = *rows_;
  const auto costs = r.options.costs.size();
  std::vector<double> out(r.classes.size() * costs, 0.0);
  comm::agree(r.comm, "cross-validation of the support vector machines", [&] {
    const auto ranks = static_cast<std::size_t>(r.comm.size());
    constexpr double kQuiet_s = 10;  // a short search prints only its result
    const Clock clock;
    Eta eta(static_cast<double>(out.size()));
    for (auto task = static_cast<std::size_t>(r.comm.rank()); task < out.size(); task += ranks) {
      const auto c = task / costs;
      if (const auto folds = folds_of_class(c); folds >= 2) {
        const auto folds_of = stratified_folds(r.signs.of(c), folds);
        for (std::int32_t fold = 0; fold < folds; ++fold)
          out[task] += r.precision(c, task % costs, folds_of, fold) / static_cast<double>(folds);
      }
      eta.done(static_cast<double>(ranks));
      if (clock.seconds() > kQuiet_s)
        log::progress(fmt::format("support vector machines: cross-validated {} of {} pairs of class and cost{}",
                                  std::min(task + ranks, out.size()), out.size(), time_left(eta)));
    }
  });
  log::finish_progress();
  r.comm.all_reduce(std::span(out));
  return out;
}

LinearModel SvmTrainer::fit(std::span<const double> cost_of_class) {
  auto& r = *rows_;
  const auto classes = r.classes.size(), d = r.dimension;
  LinearModel out{static_cast<std::int64_t>(d), static_cast<std::int64_t>(classes), std::vector(classes * d, 0.0),
                  std::vector(classes, 0.0)};
  const auto owner_of = [&](std::size_t c) { return static_cast<int>(c) % r.comm.size(); };
  comm::agree(r.comm, "training of the support vector machines", [&] {
    for (std::size_t c = 0; c < classes; ++c) {
      if (owner_of(c) != r.comm.rank()) continue;
      const bool none = count(r.signs.of(c), 1) == 0, every = count(r.signs.of(c), -1) == 0;
      if (none || every) {
        out.bias[c] = none ? -1e30 : 1e30;
        continue;
      }
      const auto weight = r.fit(c, cost_of_class[c], {}, -1, static_cast<unsigned>(c * 64 + 63));
      std::copy_n(weight.begin(), d, out.weight.begin() + static_cast<std::ptrdiff_t>(c * d));
      out.bias[c] = weight[d];
    }
  });
  for (std::size_t c = 0; c < classes; ++c) {
    r.comm.broadcast(out.weight.data() + c * d, d * sizeof(double), owner_of(c));
    r.comm.broadcast(&out.bias[c], sizeof(double), owner_of(c));
  }
  return out;
}

std::vector<ProbeRow> svm_probe(const comm::Communicator& comm, const Examples& train, const Examples& test,
                                const SvmOptions& options, const Sizes& sizes) {
  constexpr double kUncheckedCost = 1;  // of a class with one positive or one negative: nothing to validate with
  const auto classes_of = classes_of_all(comm, train), left_out = classes_of_all(comm, train, -1);
  const auto classes = train.classes.size();
  return over_draws(sizes, train.several, [&](const Size& size, std::uint64_t seed) {
    Signs signs;
    std::uint64_t images = 0;  // that some class uses
    comm::agree(comm, "drawing training images", [&] {
      signs = all_signs(classes_of, classes);
      if (train.several && size.per_class > 0) {
        for (std::size_t i = 0; i < signs.rows; ++i)
          for (const auto c : left_out.of(i)) signs.values[static_cast<std::size_t>(c) * signs.rows + i] = 0;
        signs = drawn_signs(signs, train.classes, size.per_class, seed);
      }
      if (size.fraction < 1 || (!train.several && size.per_class > 0)) {
        const auto chosen =
            data::choose_subset(classes_of, static_cast<std::int64_t>(classes),
                                {.fraction = size.fraction, .per_class = size.per_class, .seed = seed}, train.classes);
        for (std::size_t i = 0; i < signs.rows; ++i)
          for (std::size_t c = 0; c < classes && !std::ranges::binary_search(chosen, i); ++c)
            signs.values[c * signs.rows + i] = 0;
      }
      for (std::size_t i = 0; i < signs.rows; ++i) images += signs.uses(i) ? 1 : 0;
      require_enough(comm, images);
    });
    SvmTrainer trainer(comm, train, std::move(signs), options);
    std::vector<DrawResult> out;
    const auto add = [&](const std::vector<double>& costs, double choice) {
      auto model = trainer.fit(costs);
      auto figures = judge(comm, model, test, true);
      out.push_back({images, costs, choice, std::move(figures), 0, std::move(model)});
      if (options.best_on_test) out.back().choice = out.back().figures.precision.all_points;
    };
    if (options.best_on_test) {
      for (const double cost : options.costs) add(std::vector(classes, cost), 0);
    } else if (options.costs.size() == 1) {
      add(std::vector(classes, options.costs[0]), 0);
    } else {
      const auto precision = trainer.cross_validate();
      std::vector<double> chosen;
      double sum = 0, validated = 0;
      for (std::size_t c = 0; c < classes; ++c) {
        chosen.push_back(kUncheckedCost);
        if (trainer.folds_of_class(c) < 2) continue;
        const auto begin = precision.begin() + static_cast<std::ptrdiff_t>(c * options.costs.size());
        const auto best = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(options.costs.size()));
        chosen.back() = options.costs[static_cast<std::size_t>(best - begin)];
        sum += *best;
        validated += 1;
      }
      add(chosen, sum / std::max(validated, 1.0));
    }
    out.back().unconverged = trainer.unfinished();
    return out;
  });
}

}  // namespace seer::eval
