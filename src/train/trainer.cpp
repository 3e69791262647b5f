// SPDX-License-Identifier: Apache-2.0
#include "seer/train/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>

#include "seer/base/build_info.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/signals.hpp"
#include "seer/comm/watchdog.hpp"
#include "seer/data/source.hpp"
#include "seer/device/session.hpp"
#include "seer/train/collapse.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/metrics.hpp"
#include "seer/train/phases.hpp"
#include "seer/train/run_lock.hpp"
#include "seer/train/schedule.hpp"
#include "seer/train/tensorboard.hpp"
#include "seer/train/traffic.hpp"

namespace seer::train {
namespace {

namespace fs = std::filesystem;

class Run {
 public:
  Run(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options);
  int loop();

 private:
  void prepare_folder(const PretrainOptions& options);
  void write_configuration() const;
  void write_traffic(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates) const;
  void resume(const PretrainOptions& options);
  void warn_of_other_shards() const;
  void save(std::int64_t completed);
  void note_stop();
  void record(std::int64_t completed, const Learner::Outcome& outcome, double lr);
  void finish(std::int64_t completed);

  const config::Config& config_;
  const comm::Communicator& comm_;
  std::optional<comm::Watchdog> watchdog_;  ///< outlives what may hang when it is destroyed
  Phases phases_;
  std::optional<Learner> learner_;
  std::unique_ptr<data::BatchSource> source_;
  std::optional<Schedule> schedule_;
  std::optional<CollapseWatch> collapse_;
  std::optional<Metrics> metrics_;
  std::optional<EventFile> events_;
  std::optional<TrafficLedger> traffic_;
  checkpoint::State loaded_;
  std::int64_t start_ = 0, total_ = 0, bad_images_ = 0, skipped_ = 0, saved_ = -1, logged_ = 0;
  std::string stop_reason_;
  bool resumes_by_itself_ = true;
  std::optional<RunLock> lock_;  ///< the root's
};

std::int64_t total_updates(const config::Config& config, std::uint64_t images) {
  if (config.schedule.epochs <= 0) return config.schedule.total_updates;
  const double updates =
      config.schedule.epochs * static_cast<double>(images) / static_cast<double>(config.data.global_batch);
  if (updates >= 1 && updates < 1e12) return static_cast<std::int64_t>(updates);
  throw Error(ExitCode::input,
              fmt::format("schedule.epochs = {} of {} images in batches of {} are {:.3g} updates",
                          config.schedule.epochs, images, config.data.global_batch, updates),
              "use more or fewer epochs, or schedule.total_updates")
      .as_agreed();
}

std::vector<checkpoint::Shard> shards_of(const data::BatchSource& source) {
  std::vector<checkpoint::Shard> out;
  for (const auto& [name, bytes, images] : source.shards()) out.push_back({name, bytes, images});
  return out;
}

comm::SilenceLimits limits_of(const config::Log& log) {
  return {static_cast<double>(log.hang_setup_seconds), static_cast<double>(log.hang_seconds),
          static_cast<double>(log.hang_checkpoint_seconds)};
}

Run::Run(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options)
    : config_(config), comm_(comm), resumes_by_itself_(options.resume == "auto") {
  comm::watch_for_stop(comm.is_root() ? config.log.walltime : "");  // one clock, so that its stop has one name
  learner_.emplace(config, comm, phases_);
  traffic_.emplace([this] { return learner_->traffic(); });
  comm::agree(comm, "preparing the run folder", [&] { prepare_folder(options); });
  comm::leave_traces_in(config.log.run_dir);
  watchdog_.emplace(comm, config.log.run_dir, limits_of(config.log));
  if (comm.is_root()) comm::watch_for_files(config.log.run_dir);
  log::info(fmt::format("{}\n{}\n{} ranks, {} images a rank\n{}\n{}", build_info(), device::describe(), comm.size(),
                        learner_->images_per_rank(), learner_->describe(), config::to_table(config)));
  resume(options);
  source_ = data::open_source(config, comm, start_);
  warn_of_other_shards();
  total_ = total_updates(config, source_->images());
  schedule_.emplace(config.schedule, total_);
  if (start_ > 0) schedule_->restore(loaded_.plateau);
  collapse_.emplace(config);
  comm::agree(comm, "opening the run's records", [&] {
    if (!comm_.is_root()) return;
    write_configuration();  // only now: a start that was refused leaves that of the run as it is
    metrics_.emplace(config_.log.run_dir, start_);
    if (config_.log.tensorboard) events_.emplace(config_.log.run_dir, start_);
  });
  log::info(
      fmt::format("{} images in the data set, {} updates in all, starting at {}", source_->images(), total_, start_));
}

void Run::prepare_folder(const PretrainOptions& options) {
  if (!comm_.is_root()) return;
  const fs::path dir = config_.log.run_dir;
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) {
    throw Error(ExitCode::file, fmt::format("cannot make the run folder {}: {}", dir.string(), error.message()),
                "set log.run_dir to a folder you may write to");
  }
  lock_.emplace(dir.string());
  if (options.resume == "never" && fs::exists(dir / "checkpoints")) {
    int n = 1;
    while (fs::exists(dir / fmt::format("checkpoints.old-{}", n))) ++n;
    fs::rename(dir / "checkpoints", dir / fmt::format("checkpoints.old-{}", n));
    if (fs::exists(dir / "metrics.jsonl")) {
      fs::rename(dir / "metrics.jsonl", dir / fmt::format("checkpoints.old-{}/metrics.jsonl", n));
    }
  }
  log::to_file((dir / "log.txt").string());
}

void Run::write_configuration() const {
  const auto path = config_.log.run_dir + "/config.toml";
  std::ofstream file(path);
  file << config::to_toml(config_);
  if (!file.flush()) {
    throw Error(ExitCode::file, "cannot write " + path, "free space or choose another log.run_dir");
  }
}

void Run::write_traffic(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates) const {
  if (!comm_.is_root()) return;
  const auto path = config_.log.run_dir + "/traffic.json";
  std::ofstream file(path);
  file << to_json(rows, updates, logged_, comm_.size());
  if (!file.flush()) throw Error(ExitCode::file, "cannot write " + path, "free space or choose another log.run_dir");
}

void Run::resume(const PretrainOptions& options) {
  std::optional<std::string> from;
  if (options.resume == "auto") {
    from = checkpoint::find_valid(comm_, config_.log.run_dir);
  } else if (options.resume != "never") {
    comm::agree(comm_, "the checkpoint to resume", [&] { from = checkpoint::resolve(options.resume); });
  }
  if (!from) {
    if (!config_.model.init_from.empty()) learner_->start_from(config_.model.init_from);
    if (config_.checkpoint.rehearse) checkpoint::rehearse(comm_, config_.log.run_dir);
    return;
  }
  loaded_ = checkpoint::load(comm_, *from, learner_->slabs(), options.resume == "auto");
  if (loaded_.global_batch != config_.data.global_batch) {
    throw Error(ExitCode::input,
                fmt::format("data.global_batch is {}, that of the checkpoint {} was {}", config_.data.global_batch,
                            *from, loaded_.global_batch),
                "resume with the same global batch: update and schedule count in batches")
        .as_agreed();
  }
  if (loaded_.seed != config_.data.seed) {
    log::warn(fmt::format("data.seed is {}, that of the checkpoint was {}: another order of images from here on",
                          config_.data.seed, loaded_.seed));
  }
  comm::agree(comm_, "putting newer checkpoints aside", [&] {
    if (!comm_.is_root()) return;
    const auto aside = checkpoint::set_aside_newer(config_.log.run_dir, loaded_.update);
    if (!aside.empty()) log::warn(fmt::format("checkpoints newer than {} are now in {}", *from, aside));
  });
  learner_->share_loaded();
  learner_->restore_queue(loaded_);
  learner_->restore_loss_scale(loaded_);
  start_ = loaded_.update;
  saved_ = start_;
  log::info(fmt::format("resumed from {} after {} updates", *from, start_));
}

void Run::warn_of_other_shards() const {
  if (start_ == 0) return;
  const auto now = shards_of(*source_);
  const auto text = [](const std::vector<checkpoint::Shard>& shards, std::size_t i) {
    if (i >= shards.size()) return std::string("nothing");
    return fmt::format("{} ({} images, {} bytes)", shards[i].name, shards[i].images, shards[i].bytes);
  };
  for (std::size_t i = 0; i < std::max(now.size(), loaded_.shards.size()); ++i) {
    const auto here = text(now, i), there = text(loaded_.shards, i);
    if (here == there) continue;
    log::warn(
        fmt::format("the data set is not that of the checkpoint: shard {} is {}, was {}; the run goes on, with "
                    "another sequence of images than an undisturbed one",
                    i, here, there));
    return;
  }
}

void Run::save(std::int64_t completed) {
  if (completed == saved_) return;
  const auto timer = phases_.time(Phase::checkpoint);
  traffic_->close(TrafficLedger::Use::update);
  checkpoint::State state;
  state.update = completed;
  state.images_seen = completed * config_.data.global_batch;
  state.seed = config_.data.seed;
  state.global_batch = config_.data.global_batch;
  state.ranks = comm_.size();
  state.shards = shards_of(*source_);
  state.plateau = schedule_->state();
  state.config_toml = config::to_toml(config_);
  learner_->save_queue(state);
  learner_->save_loss_scale(state);
  const auto folder = checkpoint::save(comm_, config_.log.run_dir, learner_->slabs(), state);
  saved_ = completed;
  if (comm_.is_root()) {
    checkpoint::retain(config_.log.run_dir, config_.checkpoint.keep_last, config_.checkpoint.keep_every);
  }
  traffic_->close(TrafficLedger::Use::checkpoint);
  log::info("checkpoint " + folder);
}

void Run::record(std::int64_t completed, const Learner::Outcome& outcome, double lr) {
  ++logged_;
  UpdateRecord r;
  r.update = completed;
  r.loss = outcome.loss;
  r.lr = lr;
  r.grad_norm = outcome.grad_norm;
  r.code_entropy = outcome.code_entropy;
  r.prediction_entropy = outcome.prediction_entropy;
  r.loss_scale = outcome.loss_scale;
  r.bad_images = bad_images_;
  r.skipped = skipped_;
  r.host_bytes = comm_.all_reduce(static_cast<std::int64_t>(device::resident_bytes()), comm::Op::max);
  const auto times = phases_.take_interval();
  fill(r, times);
  r.images_per_s = 1000.0 * static_cast<double>(config_.data.global_batch) / r.step_ms;
  r.epoch = static_cast<double>(completed * config_.data.global_batch) / static_cast<double>(source_->images());
  r.eta_s = static_cast<double>(total_ - completed) * r.step_ms / 1000;
  if (!comm_.is_root()) return;
  metrics_->write(r);
  if (events_) events_->write(r);
  log::progress(progress_line(r, total_));
}

/// To be called on all ranks once they know that one of them was asked to stop.
void Run::note_stop() {
  stop_reason_ = comm::stop_reason().empty() ? "another rank's request" : comm::stop_reason();
}

int Run::loop() {
  std::int64_t t = start_;
  traffic_->close(TrafficLedger::Use::set_up);
  phases_.restart();
  if (comm_.all_reduce(comm::stop_requested() ? 1.0 : 0.0, comm::Op::max) > 0) note_stop();  // asked for in set-up
  while (t < total_ && stop_reason_.empty()) {
    comm::tell_update(t);
    const data::Batch* batch;
    {
      const auto timer = phases_.time(Phase::data_wait);
      batch = &source_->next();
    }
    const double lr = schedule_->lr(t);
    const bool log_this = (t + 1) % config_.log.every == 0 || t == start_ || t + 1 == total_;
    const auto outcome = learner_->update(*batch, t, lr, log_this ? Learner::Diagnose::yes : Learner::Diagnose::no);
    ++t;
    if (std::isfinite(outcome.loss)) schedule_->observe(t - 1, outcome.loss);
    skipped_ += outcome.skipped ? 1 : 0;
    bad_images_ += outcome.bad_images;
    if (const auto warning = collapse_->observe(t, outcome.loss)) log::warn(*warning);
    phases_.end_update();
    if (log_this) record(t, outcome, lr);

    if (outcome.stop) {
      note_stop();
    } else if (outcome.checkpoint || t % config_.checkpoint.every_updates == 0) {
      save(t);
    }
  }
  if (t > start_ || stop_reason_.empty()) save(t);
  comm::stop_is_done();
  finish(t);
  return static_cast<int>(stop_reason_.empty() ? ExitCode::ok : ExitCode::requeue);
}

void Run::finish(std::int64_t completed) {
  traffic_->close(TrafficLedger::Use::update);
  const auto summary = reduce(phases_.total(), comm_);
  const auto peak = comm_.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max);
  log::finish_progress();
  if (completed > start_) log::info(to_table(summary));
  const auto messages = traffic_->rows();
  auto memory = learner_->footprint();
  memory.data = source_->bytes_held();
  log::info(to_table(memory, static_cast<std::int64_t>(device::peak_resident_bytes())));
  if (const auto table = to_table(messages, completed - start_); !table.empty()) log::info(table);
  comm::agree(comm_, "writing traffic.json", [&] { write_traffic(messages, completed - start_); });
  log::info(fmt::format("peak memory of a rank {:.2f} GiB, of that activations {:.2f} GiB",
                        static_cast<double>(peak) / (1 << 30),
                        static_cast<double>(learner_->activation_peak_bytes()) / (1 << 30)));
  for (const auto& warning : log::warnings()) log::info("  earlier warning: " + warning);
  if (stop_reason_.empty()) {
    log::info(fmt::format("done: {} updates", completed));
  } else {
    log::info(fmt::format("stopped by {} after {} of {} updates; start {} to go on", stop_reason_, completed, total_,
                          resumes_by_itself_ ? "the same command again" : "it again without --resume"));
  }
}

}  // namespace

int pretrain(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options) {
  return Run(config, comm, options).loop();
}

}  // namespace seer::train
