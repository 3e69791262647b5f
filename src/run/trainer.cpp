// SPDX-License-Identifier: Apache-2.0
#include "seer/run/trainer.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

#include "run_folder.hpp"
#include "seer/base/build_info.hpp"
#include "seer/base/clock.hpp"
#include "seer/comm/launcher.hpp"
#include "seer/comm/progress.hpp"
#include "seer/data/source.hpp"
#include "seer/device/session.hpp"
#include "seer/run/evaluations.hpp"
#include "seer/run/guard.hpp"
#include "seer/run/labels.hpp"
#include "seer/run/resume.hpp"
#include "seer/run/saver.hpp"
#include "seer/run/tester.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/memory_plan.hpp"
#include "seer/train/optimizer.hpp"
#include "seer/train/phases.hpp"
#include "seer/watch/energy.hpp"
#include "seer/watch/signals.hpp"
#include "seer/watch/watchdog.hpp"
#include "weights_source.hpp"

namespace seer::run {
namespace {

/// Makes a run wait at a chosen update, for tests that disturb runs: they need not guess how fast the machine is.
class Pause {
 public:
  /// Collective. Rank 0's environment variable SEER_PAUSE_AFTER is the update to wait after; 0: before the first one.
  /// Error(input), agreed, if it is no such number.
  Pause(const comm::Communicator& comm, const std::string& run_dir) : comm_(comm), sign_(run_dir + "/PAUSED") {
    comm::agree(comm, "reading SEER_PAUSE_AFTER", [&] {
      const char* const text = std::getenv("SEER_PAUSE_AFTER");
      if (!comm.is_root() || text == nullptr) return;
      const std::string_view digits = text;
      const auto [end, error] = std::from_chars(digits.begin(), digits.end(), update_);
      if (error == std::errc() && end == digits.end() && update_ >= 0) return;
      throw Error(ExitCode::input, fmt::format("SEER_PAUSE_AFTER=\"{}\"; wanted the number of an update, or 0", text),
                  "unset it: it is for tests");
    });
    comm.broadcast(&update_, sizeof update_);
  }

  /// At that update: collective. Once all ranks are here, rank 0 writes <run_dir>/PAUSED (one line per rank: its number
  /// and its process), and every rank waits until that file is gone. Error(file), agreed. At others: does nothing.
  void after(std::int64_t update) const {
    if (update != update_) return;
    const auto ranks = comm_.all_gather(fmt::format("{} {}\n", comm_.rank(), ::getpid()));
    comm::agree(comm_, "pausing", [&] {
      if (!comm_.is_root()) return;
      const auto text = fmt::format("{}", fmt::join(ranks, ""));
      checkpoint::replace_file(sign_, [&](const std::string& temporary) { checkpoint::write_text(temporary, text); });
    });
    for (std::error_code ignored; std::filesystem::exists(sign_, ignored);) {
      comm::tell_progress();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

 private:
  const comm::Communicator& comm_;
  std::string sign_;
  std::int64_t update_ = -1;  ///< -1: never
};

/// Seconds until the end of the job, by Slurm.
std::optional<double> job_ends_s() {
  const char* end = std::getenv("SLURM_JOB_END_TIME");
  if (end == nullptr) return {};
  return std::strtod(end, nullptr) - static_cast<double>(std::time(nullptr));
}

/// For the log: how the rate goes on.
std::string rates_text(const config::Schedule& s, std::int64_t start) {
  auto text = start < s.warmup_updates
                  ? fmt::format(", {:.4g} after {} updates of warm-up", s.lr_peak, s.warmup_updates)
                  : std::string();
  return text + (s.kind == "cosine" ? fmt::format(", {:.4g} at the end", s.lr_final) : fmt::format("; {}", s.kind));
}

class Run {
 public:
  Run(const Task& task, const comm::Communicator& comm, const PretrainOptions& options)
      : config_(task.config), classes_(task.classes), comm_(comm), resumes_by_itself_(options.resume == "auto") {
    const auto& config = config_;
    const auto limit_s = config::walltime_seconds(config.log.walltime).value_or(0);
    watch::watch_for_stop(comm.is_root() ? limit_s : 0);  // one clock, so that a stop has one reason
    // The readers' memory is part of the plan for recompute = "auto".
    std::optional<data::DataSet> shards;
    data::Readers readers;
    if (config.parallel.recompute == "auto" && config.data.source == "shards") {
      shards.emplace(data::DataSet::open(config.data.shards, comm));
      readers.image_pixels = data::largest_image_pixels(config, *shards, comm);
      readers.images = static_cast<std::int64_t>(shards->images());
    }
    auto backend = train::make_backend(config, comm);  // first: it may refuse the precision, and takes device memory
    learner_.emplace(config, comm, phases_, train::plan_memory(config, comm, readers), std::move(backend));
    traffic_.emplace([this] {
      auto out = learner_->traffic();
      if (saver_) out.insert(out.end(), saver_->traffic().begin(), saver_->traffic().end());
      return out;
    });
    folder_.emplace(config, comm, options);
    comm::leave_traces_in(config.log.run_dir);
    const auto seconds = [](std::int64_t key) { return static_cast<double>(key); };
    watchdog_.emplace(comm, config.log.run_dir,
                      watch::SilenceLimits{seconds(config.log.hang_setup_seconds), seconds(config.log.hang_seconds),
                                           seconds(config.log.hang_checkpoint_seconds)});
    if (comm.is_root()) watch::watch_for_files(config.log.run_dir);
    const auto recomputed =
        config.parallel.recompute == "auto" ? "recomputed: " + train::to_text(learner_->keep()) + "\n" : "";
    log::info(fmt::format("{}\n{}\n{} ranks, {} images a rank\n{}\n{}{}", build_info(), device::describe(), comm.size(),
                          learner_->images_per_rank(), learner_->describe(), recomputed,
                          config::to_table(config, options.verbose ? config::Rows::all : config::Rows::changed)));
    local_ = open_local_sets(config, comm, options);
    saver_.emplace(config, comm, phases_, *traffic_, *learner_, local_.get(),
                   [this](checkpoint::State& state) { describe(state); });
    const auto from = resume(config, comm, options, *learner_, local_.get(), classes_);
    if (from) data_start_ = {from->update, from->images_seen};
    start_ = data_start_.update;
    const auto labels = method::kind(config).reads_labels ? data::Labels::read : data::Labels::ignore;
    source_ = data::open_source(config, comm, data_start_, learner_->device_queue(), std::move(shards), labels);
    if (!config.data.test_shards.empty()) tester_.emplace(config, comm);
    total_ = train::total_updates(config, source_->images(), images_seen(0));
    learner_->set_length(total_);
    if (from) {
      warn_of_other_shards(*from, *source_);
      schedule_.emplace(schedule_from(*from, config, total_, source_->images(), options));
      saver_->resumed(start_);
    } else {
      schedule_.emplace(train::in_updates(config, source_->images()), total_);
    }
    eta_.emplace(static_cast<double>(total_ - start_));
    guard_.emplace(config, comm.is_root(), from);
    evaluations_.emplace(config, comm, phases_, *learner_, total_, from);
    learner_->take_requests([] {
      return train::Learner::Asked{.stop = watch::stop_requested(), .checkpoint = watch::take_checkpoint_request()};
    });
    learner_->refuse_losses([this](double loss) { return guard_->refuses(loss); });
    // Only now, so that a refused start changes nothing in the run folder.
    put_newer_aside(config, comm, start_, local_.get());
    folder_->open_records(start_);
    evaluations_->begin(*saver_);
    if (comm.is_root()) comm::forget_old_traces(config.log.run_dir);
    log::info(fmt::format("{} images in the data set, {} updates in all ({}), starting at {}", source_->images(),
                          total_, train::length_text(config), start_));
    log::info(fmt::format("learning rate {:.4g} now{}", schedule_->lr(start_), rates_text(config.schedule, start_)));
    for (const auto& line : doubts(config, {source_->images(), total_, comm.size(), job_ends_s()})) log::warn(line);
  }

  int loop() {
    std::int64_t t = start_;
    const Pause pause(comm_, config_.log.run_dir);
    pause.after(t);
    if (comm_.all_reduce(watch::stop_requested() ? 1.0 : 0.0, comm::Op::max) > 0) note_stop();  // asked during set-up
    energy_.emplace(comm_, on_device());
    traffic_->close(TrafficLedger::Use::set_up);
    phases_.restart();
    while (t < total_ && stop_reason_.empty() && !evaluations_->out_of_patience()) {
      comm::tell_update(t);
      const data::Batch* batch;
      {
        const auto timer = phases_.time(train::Phase::data_wait);
        batch = &source_->next();
      }
      const double lr = schedule_->lr(t);
      const bool evaluate = evaluations_->due(t + 1);
      const bool log_this = (t + 1) % config_.log.every == 0 || t == start_ || t + 1 == total_ || evaluate;
      const auto outcome =
          learner_->update(*batch, t, lr, log_this ? train::Learner::Figures::yes : train::Learner::Figures::no);
      ++t;
      if (outcome.loss_counts()) schedule_->observe(t - 1, outcome.loss);
      skipped_ += outcome.skipped ? 1 : 0;
      bad_images_ += outcome.bad_images;
      if (const auto warning = learner_->method().watch(t, outcome.counted_loss())) log::warn(*warning);
      const auto evaluation = evaluate && !outcome.skipped ? this->evaluate(t) : std::vector<method::Figure>();
      phases_.end_update();
      energy_->tick();
      evaluations_->after_update(t);
      if (log_this) record(t, outcome, lr, evaluation);
      if (guard_->observe(t, outcome) == Guard::Next::reload && t < total_) reload(t);
      folder_->tend(t);
      // Before the save: a resumed run then has the tests of all its updates, and each once.
      if (tester_ && tester_->due(t, total_) && !outcome.stop) test(t);

      if (outcome.stop)
        note_stop();
      else if (!evaluation.empty() && evaluations_->found_best() && evaluations_->kept() != nullptr)
        saver_->save_best(t, evaluations_->kept()->to_json());
      else if (outcome.checkpoint)
        saver_->save(t);
      else
        saver_->after_update(t, guard_->trusts());
      pause.after(t);
    }
    if (t > start_ || stop_reason_.empty()) saver_->finish(t);
    watch::stop_is_done();
    if (tester_ && (t == total_ || evaluations_->out_of_patience()) && tested_ != t) test(t);
    finish(t);
    return static_cast<int>(stop_reason_.empty() ? ExitCode::ok : ExitCode::requeue);
  }

 private:
  std::vector<method::Figure> evaluate(std::int64_t completed) {
    traffic_->close(TrafficLedger::Use::update);
    auto figures = evaluations_->evaluate(completed);
    traffic_->close(TrafficLedger::Use::evaluation);
    return figures;
  }

  /// Adds what only the run knows to a checkpoint's state.
  void describe(checkpoint::State& state) const {
    state.images_seen = images_seen(state.update);
    state.shards = source_->shards();
    state.classes = classes_;
    state.plateau = schedule_->state();
    if (const auto& kept = schedule_->kept()) state.kept_rate = {static_cast<double>(kept->update), kept->rate};
    guard_->save(state);
    evaluations_->save(state);
  }

  /// Loads the last good checkpoint in the middle of the run. Updates, data and schedule count on from `completed`.
  void reload(std::int64_t completed) {
    const auto timer = phases_.time(train::Phase::checkpoint);
    traffic_->close(TrafficLedger::Use::update);
    saver_->settle();
    const auto folder = checkpoint::find_valid(comm_, config_.log.run_dir);
    if (!folder) guard_->give_up("there is no checkpoint to go back to");
    const auto state = checkpoint::load(comm_, *folder, learner_->slabs(), true);
    learner_->share_loaded();
    learner_->restore(state);
    guard_->reloaded(completed, *folder);
    traffic_->close(TrafficLedger::Use::checkpoint);
  }

  std::int64_t images_seen(std::int64_t completed) const {
    return data_start_.position(completed, config_.data.global_batch);
  }
  bool on_device() const { return learner_->space() == device::Space::device; }

  /// Call on all ranks once they know that one of them was asked to stop.
  void note_stop() { stop_reason_ = watch::stop_reason().empty() ? "another rank's request" : watch::stop_reason(); }

  void record(std::int64_t completed, const train::Learner::Outcome& outcome, double lr,
              const std::vector<method::Figure>& evaluation) {
    ++logged_;
    UpdateRecord r;
    r.update = completed;
    r.loss = outcome.loss;
    r.lr = lr;
    r.grad_norm = outcome.grad_norm;
    r.method = config_.method.kind;
    r.figures = outcome.figures;
    r.evaluation = evaluation;
    r.loss_scale = outcome.loss_scale;
    r.bad_images = bad_images_;
    r.skipped = skipped_;
    r.host_bytes = comm_.all_reduce(static_cast<std::int64_t>(device::resident_bytes()), comm::Op::max);
    if (on_device()) r.device_bytes = comm_.all_reduce(learner_->footprint().total(), comm::Op::max);
    const auto& times = r.times = phases_.take_interval();
    r.images_per_s = 1000.0 * static_cast<double>(config_.data.global_batch) / times.step_ms();
    const auto joules = energy_->take_joules();
    r.images_per_wh = watch::images_per_wh(static_cast<double>(times.updates * config_.data.global_batch), joules);
    joules_ += joules.value_or(0);
    r.epoch = static_cast<double>(images_seen(completed)) / static_cast<double>(source_->images());
    // Without the time of checkpoints and evaluations: when they happen says nothing about the updates to come.
    eta_->done(
        static_cast<double>(times.updates),
        (times.wall_ms - times.ms[index(train::Phase::checkpoint)] - times.ms[index(train::Phase::evaluation)]) / 1000);
    r.eta_s = eta_->seconds_left().value_or(-1);
    if (!comm_.is_root()) return;
    folder_->write(r);
    log::progress(progress_line(r, total_));
  }

  void test(std::int64_t completed) {
    const TestRecord record{completed, tester_->test(*learner_)};
    tested_ = completed;
    if (!comm_.is_root()) return;
    folder_->write(record);
    log::finish_progress();
    log::info(to_text(record));
  }

  void finish(std::int64_t completed) {
    traffic_->close(TrafficLedger::Use::update);
    const auto summary = reduce(phases_.total(), comm_);
    const auto peak = comm_.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max);
    log::finish_progress();
    if (completed > start_) log::info(to_table(summary));
    const auto messages = traffic_->rows();
    auto memory = learner_->footprint();
    if (on_device()) {
      log::info(to_table(memory, memory.total()));  // of the device; the memory of its libraries is unknown
    } else {
      memory.data = source_->bytes_held();
      memory.checkpoint = saver_->bytes_held();
      log::info(to_table(memory, static_cast<std::int64_t>(device::peak_resident_bytes())));
    }
    if (const auto table = to_table(messages, completed - start_); !table.empty()) log::info(table);
    folder_->write("traffic.json", to_json(messages, completed - start_, logged_, comm_.size()));
    log::info(fmt::format("peak memory of a rank {:.2f} GiB, of that activations {:.2f} GiB",
                          static_cast<double>(peak) / (1 << 30),
                          static_cast<double>(learner_->activation_peak_bytes()) / (1 << 30)));
    if (joules_ > 0)
      log::info(fmt::format(
          "energy of {}: {:.4g} Wh, {:.4g} images per Wh", energy_->counted(), joules_ / 3600,
          watch::images_per_wh(static_cast<double>((completed - start_) * config_.data.global_batch), joules_)));
    for (const auto& warning : log::warnings()) log::info("  earlier warning: " + warning);
    if (stop_reason_.empty() && completed < total_) {
      log::info(fmt::format("done: {} updates of {}; watch.patience ends the run early: {}", completed, total_,
                            evaluations_->patience_text()));
    } else if (stop_reason_.empty()) {
      log::info(fmt::format("done: {} updates", completed));
    } else {
      log::info(fmt::format("stopped by {} after {} of {} updates{}: nothing is lost; start {} to go on", stop_reason_,
                            completed, total_, completed > start_ ? ", checkpoint written" : "",
                            resumes_by_itself_ ? "the same command again" : "it again without --resume"));
      if (comm::under_mpirun())
        log::info(
            "mpirun may now report a non-zero status or exit code 75: this stop is the cause, nothing has failed");
    }
  }

  const config::Config& config_;
  const std::vector<std::string>& classes_;  ///< of the labels
  const comm::Communicator& comm_;
  std::optional<watch::Watchdog> watchdog_;  ///< outlives members whose destructors may hang
  train::Phases phases_;
  std::optional<train::Learner> learner_;
  std::unique_ptr<data::BatchSource> source_;
  std::optional<train::Schedule> schedule_;
  std::optional<Guard> guard_;
  std::optional<RunFolder> folder_;
  std::optional<Tester> tester_;
  std::optional<TrafficLedger> traffic_;
  std::unique_ptr<checkpoint::LocalSets> local_;
  std::optional<Saver> saver_;
  std::optional<Evaluations> evaluations_;
  std::optional<Eta> eta_;
  std::optional<watch::Energy> energy_;
  double joules_ = 0;
  data::Start data_start_;
  std::int64_t start_ = 0, total_ = 0, tested_ = -1, bad_images_ = 0, skipped_ = 0, logged_ = 0;
  std::string stop_reason_;
  bool resumes_by_itself_ = true;
};

}  // namespace

int pretrain(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options) {
  const bool anew = starts_anew(config, comm, options);
  if (anew) check_source(config, comm, {});  // first: reading the labels may take long
  const auto task = complete(config, comm);
  if (anew) check_source(config, comm, task.classes);
  return Run(task, comm, options).loop();
}

}  // namespace seer::run
