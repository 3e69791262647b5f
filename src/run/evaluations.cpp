// SPDX-License-Identifier: Apache-2.0
#include "seer/run/evaluations.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/run/records.hpp"
#include "watched_sets.hpp"

namespace seer::run {

bool EvaluationInterval::plan(const comm::Communicator& comm, std::int64_t completed, double cost_s, double update_s) {
  const double updates = std::ceil(cost_s * (1 / kMostShare - 1) / std::max(update_s, 1e-9));
  const auto left = total_ - completed;
  std::int64_t count = 0;
  if (left > 0 && updates <= static_cast<double>(left))
    count = left / std::max<std::int64_t>(1, static_cast<std::int64_t>(updates));
  comm.broadcast(&count, sizeof count);
  next_ =
      completed + (left + count - 1) / std::max<std::int64_t>(1, count);  // evenly, so that the last one is at the end
  if (count == 0) next_ = total_;
  return count > 0;
}

bool BestEvaluation::take(std::int64_t measure_now, double value_now, std::int64_t update_now,
                          std::int64_t setting_now) {
  if (!compares(measure_now, setting_now))
    *this = {measure_now, -std::numeric_limits<double>::infinity(), -1, 0, setting_now};
  setting = setting_now;
  if (!(value_now > value)) {
    ++since;
    return false;
  }
  *this = {measure_now, value_now, update_now, 0, setting_now};
  return true;
}

std::vector<double> BestEvaluation::state() const {
  if (measure < 0) return {};
  return {static_cast<double>(measure), value, static_cast<double>(update), static_cast<double>(since),
          static_cast<double>(setting)};
}

BestEvaluation BestEvaluation::from_state(const std::vector<double>& state) {
  if (state.size() < 4 || state.size() > 5 || !(state[0] >= 0 && state[0] < static_cast<double>(std::size(kMeasures))))
    return {};
  return {static_cast<std::int64_t>(state[0]), state[1], static_cast<std::int64_t>(state[2]),
          static_cast<std::int64_t>(state[3]), state.size() > 4 ? static_cast<std::int64_t>(state[4]) : kUnknown};
}

std::string BestEvaluation::to_json() const {
  const nlohmann::ordered_json out = {{"update", update},
                                      {"checkpoint", "checkpoints/" + checkpoint::folder_name(update)},
                                      {"measure", kMeasures[measure]},
                                      {"value", value}};
  return out.dump() + "\n";
}

Evaluations::Evaluations(const config::Config& config, const comm::Communicator& comm, train::Phases& phases,
                         train::Learner& learner, std::int64_t total, const std::optional<checkpoint::State>& from)
    : config_(config),
      comm_(comm),
      phases_(phases),
      learner_(learner),
      keep_best_(config.watch.keep_best),
      patience_(config.watch.every != 0 ? config.watch.patience : 0),
      interval_(config.watch.every, from ? from->update : 0, total),
      best_(BestEvaluation::from_state(from ? from->watch : std::vector<double>())) {
  if (config.watch.every == 0) return;
  sets_ = std::make_unique<Sets>(config, comm);
  measure_ = sets_->labelled ? 0 : 1;
  setting_ = crc32c(sets_->setting(config));
  comm.broadcast(&setting_, sizeof setting_);
}

Evaluations::~Evaluations() = default;

void Evaluations::begin(Saver& saver) {
  namespace fs = std::filesystem;
  const auto path = config_.log.run_dir + "/BEST";
  char there = 0;
  comm::agree(comm_, "the best evaluation", [&] {
    if (!comm_.is_root()) return;
    std::error_code ignored;
    there = kept() != nullptr &&
            fs::exists(checkpoint::checkpoints_folder(config_.log.run_dir) / checkpoint::folder_name(best_.update),
                       ignored);
    if (there != 0)
      checkpoint::replace_file(path, [&](const std::string& to) { checkpoint::write_text(to, best_.to_json()); });
    else
      fs::remove(path, ignored);
  });
  comm_.broadcast(&there, sizeof there);
  if (keep_best_ && there == 0) best_ = {};
  saver.keep_best(kept() != nullptr ? best_.update : -1);
  if (!sets_ || interval_.next() == interval_.start()) return;
  const bool unknown = interval_.by_cost() && interval_.guess_at() < interval_.next();
  log::info(unknown
                ? fmt::format("watch.every = \"auto\": the first evaluation of this start comes when the times of its "
                              "first {} updates say so, or after the last update, {}",
                              EvaluationInterval::kGuessAfter, interval_.next())
                : fmt::format("the first evaluation of this start comes after {} updates", interval_.next()));
}

std::vector<method::Figure> Evaluations::evaluate(std::int64_t completed) {
  const auto timer = phases_.time(train::Phase::evaluation);
  const Clock clock;
  std::vector<method::Figure> figures;
  found_best_ = false;
  double value = std::numeric_limits<double>::quiet_NaN();
  try {
    figures = sets_->evaluate(config_, comm_, learner_, completed);
  } catch (const Error& error) {
    if (!error.agreed() || error.code() != ExitCode::numerics) throw;
    log::warn(fmt::format("the evaluation has no result: {}", error.what()));
  }
  for (const auto& figure : figures)
    if (figure.name == BestEvaluation::kMeasures[measure_]) value = figure.value;
  found_best_ = best_.take(measure_, value, completed, setting_);
  std::string text;
  for (const auto& [name, number] : figures)
    if (std::isfinite(number)) text += fmt::format(", {} {:.4g}", name.substr(std::size("watch_") - 1), number);
  if (!figures.empty())
    log::info(fmt::format("evaluation after {} updates{} ({:.1f} s{})", completed, text, clock.seconds(),
                          found_best_ ? ", the best so far" : ""));
  figures.push_back({"watch_s", clock.seconds()});
  if (interval_.by_cost()) interval_.plan(comm_, completed, clock.seconds(), update_s());
  return figures;
}

/// Mean time of an update without evaluations, on this rank.
double Evaluations::update_s() const {
  const auto& sums = phases_.total();
  return (sums.step_ms() - sums.per_update_ms(train::Phase::evaluation)) / 1000;
}

/// Twice what the passes of the updates took for as many pixels, and the eigenproblems.
double Evaluations::guess_s() const {
  constexpr double kSafety = 2, kEigen_s = 5e-9;  ///< of d^3
  double crops = 0;
  for (const auto& c : config_.crops) crops += static_cast<double>(c.count * c.size * c.size);
  const auto& sums = phases_.total();
  const double forward_s =
      (sums.per_update_ms(train::Phase::forward) + sums.per_update_ms(train::Phase::bn_sync)) / 1000;
  const auto width = static_cast<double>(learner_.model().trunk().width());
  return kSafety * forward_s * sets_->pixels() / (crops * static_cast<double>(config_.data.global_batch)) +
         kEigen_s * width * width * width;
}

void Evaluations::after_update(std::int64_t completed) {
  if (!interval_.guess_due(completed)) return;
  const bool fits = interval_.plan(comm_, completed, guess_s(), update_s());
  log::info(fmt::format("watch.every = \"auto\": the first evaluation comes after {} updates{}", interval_.next(),
                        fits ? ""
                             : ", the last; even one probably takes more than 3 % of the rest of this run, so there is "
                               "no other; set a number for more"));
}

std::string Evaluations::patience_text() const {
  return fmt::format("no better {} in {} evaluations since update {} ({:.4g})",
                     BestEvaluation::kMeasures[best_.measure], best_.since, best_.update, best_.value);
}

}  // namespace seer::run
