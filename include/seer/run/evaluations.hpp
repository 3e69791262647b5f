// SPDX-License-Identifier: Apache-2.0
// A run that evaluates its own network ([watch]; docs/evaluation.md): figures without labels on some images of the
// training set, k-NN and a linear probe on labelled shards, the best network so far, and patience. The training does
// not notice: an evaluation copies the network and runs the copy with its running statistics, and draws nothing from
// the run's random streams.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/method/method.hpp"
#include "seer/run/saver.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/phases.hpp"

namespace seer::run {

/// After which updates to evaluate: every n-th; or so that evaluations take kMostShare of the time. Then a guess of the
/// cost decides on the first one, and what the last one took on the next. The last update is always among them, even if
/// it takes more than that share. The same on all ranks.
class EvaluationInterval {
 public:
  static constexpr double kMostShare = 0.03;
  static constexpr std::int64_t kGuessAfter = 20;  ///< updates, to have their time

  /// `every`: watch.every. `start`, `total`: updates done, and of the run.
  EvaluationInterval(std::int64_t every, std::int64_t start, std::int64_t total)
      : every_(every), start_(start), total_(total), next_(total) {
    if (every > 0) next_ = std::min(total, (start / every + 1) * every);
  }

  bool due(std::int64_t completed) const {
    if (every_ == 0) return false;
    return completed == total_ || (every_ > 0 ? completed % every_ == 0 : completed == next_);
  }
  /// True if plan() wants a guess after this update.
  bool guess_due(std::int64_t completed) const { return every_ < 0 && completed == guess_at() && completed < total_; }
  /// Collective, by cost only; values count on the root. `cost_s`: of an evaluation; `update_s`: of an update without
  /// one. Returns false if even the one after the last update takes more than the share.
  bool plan(const comm::Communicator& comm, std::int64_t completed, double cost_s, double update_s);
  bool by_cost() const { return every_ < 0; }
  /// The next update to evaluate, as far as is known: before the first one, and by cost always.
  std::int64_t next() const { return next_; }
  std::int64_t start() const { return start_; }
  /// The update after which the cost is guessed.
  std::int64_t guess_at() const { return start_ + kGuessAfter; }

 private:
  std::int64_t every_, start_, total_, next_;
};

/// The best evaluation so far. Higher is better.
struct BestEvaluation {
  std::int64_t measure = -1;  ///< place in kMeasures; -1: none yet
  double value = 0;
  std::int64_t update = -1;
  std::int64_t since = 0;  ///< evaluations after it
  /// Stands for the settings and images of the measure; kUnknown: in a checkpoint of an earlier version, equals any.
  std::int64_t setting = kUnknown;
  static constexpr std::int64_t kUnknown = -1;

  static constexpr const char* kMeasures[] = {"watch_knn_top1", "watch_rankme"};
  /// Takes an evaluation by `measure` after `update` updates; NaN: it has no result. Returns true if it is the best.
  /// With another measure or setting than before, all begins anew.
  bool take(std::int64_t measure_now, double value_now, std::int64_t update_now, std::int64_t setting_now = kUnknown);
  /// Whether it can be compared with evaluations by this measure in this setting.
  bool compares(std::int64_t measure_now, std::int64_t setting_now) const {
    return measure == measure_now && (setting == setting_now || setting == kUnknown || setting_now == kUnknown);
  }
  /// For checkpoint::State::watch.
  std::vector<double> state() const;
  static BestEvaluation from_state(const std::vector<double>& state);
  /// The content of run_dir/BEST.
  std::string to_json() const;
};

class Evaluations {
 public:
  /// Collective. Opens the data sets if [watch] is on. Error(input), agreed: there are no shards, fewer images than
  /// ranks, only one of the labelled sets, or one without labels. `from`: the checkpoint that the run continues.
  Evaluations(const config::Config& config, const comm::Communicator& comm, train::Phases& phases,
              train::Learner& learner, std::int64_t total, const std::optional<checkpoint::State>& from);
  ~Evaluations();

  /// Collective. Call once the start is certain: makes run_dir/BEST name the best checkpoint before this start, or
  /// removes it if that is not there, and forgets that evaluation. Error(file), agreed.
  void begin(Saver& saver);

  bool due(std::int64_t completed) const { return interval_.due(completed); }
  /// Collective: evaluates the network, with averaged weights if there are any, and logs the result. Memory meanwhile:
  /// the whole network on every rank. Returns the figures; none, with a warning, for a network whose features are all
  /// equal or not finite.
  std::vector<method::Figure> evaluate(std::int64_t completed);
  /// Collective after the update that needs it, if the interval follows from the cost. Call after every update.
  void after_update(std::int64_t completed);

  /// True if the last evaluate() found the best network so far, whose checkpoint is to be kept.
  bool found_best() const { return found_best_; }
  /// Null if there is none, or if it is not kept.
  const BestEvaluation* kept() const { return keep_best_ && best_.measure >= 0 ? &best_ : nullptr; }
  /// True if watch.patience has run out.
  bool out_of_patience() const {
    return patience_ > 0 && best_.since >= patience_ && best_.compares(measure_, setting_);
  }
  /// "no better ... in 5 evaluations since update 1200 (watch_rankme 85.1)"
  std::string patience_text() const;
  void save(checkpoint::State& state) const { state.watch = best_.state(); }

 private:
  struct Sets;
  double guess_s() const;
  double update_s() const;

  const config::Config& config_;
  const comm::Communicator& comm_;
  train::Phases& phases_;
  train::Learner& learner_;
  bool keep_best_;
  std::int64_t patience_;
  EvaluationInterval interval_;
  BestEvaluation best_;
  bool found_best_ = false;
  std::int64_t measure_ = -1, setting_ = BestEvaluation::kUnknown;  ///< of this start's evaluations
  std::unique_ptr<Sets> sets_;                                      ///< null: [watch] is off
};

}  // namespace seer::run
