// SPDX-License-Identifier: Apache-2.0
#include "seer/run/guard.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ranges>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/run/records.hpp"

namespace seer::run {
namespace {

constexpr double kLeastDeviation = 1e-3;  // of the mean
constexpr std::size_t kImagesTold = 16, kCulpritsTold = 4;

constexpr const char* kCauses[] = {"none", "loss_scale", "not_finite", "outlier", "replay"};  // of train::Cause

std::string describe(const train::Culprit& culprit) {
  if (culprit.rank < 0) return "in " + culprit.what;
  auto images = fmt::format("{}", fmt::join(culprit.images | std::views::take(kImagesTold), ", "));
  if (culprit.images.size() > kImagesTold) images += fmt::format(", and {} more", culprit.images.size() - kImagesTold);
  return fmt::format("in {} on rank {} ({}){}", culprit.what, culprit.rank, culprit.host,
                     images.empty() ? "" : "; images of the batch there: " + images);
}

}  // namespace

void LossWindow::add(double loss) {
  // A plain mean at first, later an exponentially weighted one.
  seen_ = std::min(seen_ + 1, updates_);
  const double share = 1 / seen_, off = loss - mean_;
  mean_ += share * off;
  variance_ = (1 - share) * (variance_ + share * off * off);
}

bool LossWindow::outlier(double loss, double z) const {
  if (seen_ < updates_) return false;
  return loss - mean_ > z * std::max(std::sqrt(variance_), kLeastDeviation * std::abs(mean_));
}

void LossWindow::restore(double seen, double mean, double variance) {
  seen_ = std::clamp(seen, 0.0, updates_);
  mean_ = mean;
  variance_ = variance;
}

std::string describe(const train::Learner::Outcome& outcome) {
  auto text = fmt::format("not finite (loss {:.6g}, gradient norm {:.6g})", outcome.loss, outcome.grad_norm);
  if (outcome.cause == train::Cause::replay) text = "its forward and backward pass gave different bits when repeated";
  if (outcome.cause == train::Cause::outlier)
    text = fmt::format("the loss {:.6g} is far above the losses before it", outcome.loss);
  for (std::size_t i = 0; i < std::min(outcome.culprits.size(), kCulpritsTold); ++i)
    text += (i == 0 ? ", first " : "; and ") + describe(outcome.culprits[i]);
  if (outcome.culprits.size() > kCulpritsTold)
    text += fmt::format("; and on {} more ranks", outcome.culprits.size() - kCulpritsTold);
  return text;
}

Guard::Guard(const config::Config& config, bool root, const std::optional<checkpoint::State>& from)
    : config_(config.guard), run_dir_(config.log.run_dir), root_(root), window_(config.guard.loss_window) {
  if (!from || from->guard.size() != 5) return;
  in_a_row_ = static_cast<std::int64_t>(from->guard[0]);
  reloads_ = static_cast<std::int64_t>(from->guard[1]);
  window_.restore(from->guard[2], from->guard[3], from->guard[4]);
}

Guard::Next Guard::observe(std::int64_t completed, const train::Learner::Outcome& outcome) {
  if (outcome.cause == train::Cause::none) {
    in_a_row_ = 0;
    if (config_.loss_z_score > 0) window_.add(outcome.loss);
    return Next::go_on;
  }
  if (outcome.cause != train::Cause::loss_scale) ++in_a_row_;
  write_line(completed, outcome);
  if (outcome.cause == train::Cause::loss_scale) return Next::go_on;

  const auto what = fmt::format("update {} skipped: {}", completed, describe(outcome));
  account_.push_back(what);
  if (outcome.cause == train::Cause::replay && config_.replay_action == "stop")
    throw Error(ExitCode::device, what + "; the hardware of that rank cannot be trusted",
                "leave that node out and start again: the run goes on from its newest checkpoint; or set "
                "guard.replay_action = \"warn\"")
        .as_agreed();
  log::warn(fmt::format("{}; bad updates in a row: {}; a checkpoint is loaded after {}", what, in_a_row_,
                        config_.max_skips_in_a_row));
  if (in_a_row_ < config_.max_skips_in_a_row) return Next::go_on;
  if (reloads_ >= config_.max_reloads)
    give_up(fmt::format("{} bad updates in a row, the last of them {}, after {} of {} reloads (guard.max_reloads)",
                        in_a_row_, completed, reloads_, config_.max_reloads));
  return Next::reload;
}

void Guard::reloaded(std::int64_t completed, const std::string& folder) {
  ++reloads_;
  in_a_row_ = 0;
  const auto what = fmt::format("after update {}: loaded {}, reload {} of {}; the run goes on with update {}",
                                completed, folder, reloads_, config_.max_reloads, completed + 1);
  account_.push_back(what);
  log::warn(what);
  append(nlohmann::ordered_json{{"update", completed}, {"cause", "reload"}, {"folder", folder}, {"reloads", reloads_}}
             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void Guard::give_up(const std::string& why) {
  const auto path = run_dir_ + "/bad_numbers.txt";
  if (root_) {
    std::ofstream file(path);
    file << "The run was given up: " << why << ".\n";
    for (const auto& line : account_) file << line << "\n";
    if (!file.flush()) log::warn(path + " cannot be written; its lines are also in the log");
  }
  throw Error(
      ExitCode::numerics,
      fmt::format("{}; {}; {} lists all bad updates", why, account_.empty() ? "no bad update" : account_.back(), path),
      "look at the images named there; lower schedule.lr_peak or lengthen the warm-up, and go on from an "
      "earlier checkpoint (--resume); or raise guard.max_reloads")
      .as_agreed();
}

void Guard::write_line(std::int64_t completed, const train::Learner::Outcome& outcome) {
  nlohmann::ordered_json line{{"update", completed},
                              {"cause", kCauses[static_cast<std::size_t>(outcome.cause)]},
                              {"in_a_row", in_a_row_},
                              {"loss", outcome.loss},
                              {"grad_norm", outcome.grad_norm},
                              {"loss_scale", outcome.loss_scale},
                              {"first", nlohmann::ordered_json::array()}};
  for (const auto& c : outcome.culprits)
    line["first"].push_back(
        nlohmann::ordered_json{{"rank", c.rank}, {"host", c.host}, {"in", c.what}, {"images", c.images}});
  append(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

/// A full disk must not end a healthy run.
void Guard::append(const std::string& line) const {
  if (!root_) return;
  try {
    AppendFile(run_dir_ + "/skipped.jsonl", "free space").append(line + "\n");
  } catch (const Error& e) {
    log::warn(fmt::format("{}; {}", e.what(), e.remedy()));
  }
}

/// Writes nothing if there is nothing to remember: the checkpoint then looks like one of a run without a guard.
void Guard::save(checkpoint::State& state) const {
  if (in_a_row_ == 0 && reloads_ == 0 && config_.loss_z_score == 0) return;
  state.guard = {static_cast<double>(in_a_row_), static_cast<double>(reloads_)};
  for (const double value : window_.state()) state.guard.push_back(value);
}

}  // namespace seer::run
