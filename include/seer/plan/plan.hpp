// SPDX-License-Identifier: Apache-2.0
// `seer plan`: memory and time of a job before any node is booked. The program's own Learner goes through a few updates
// on a planned machine; nothing here repeats what it does.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/config/machine.hpp"
#include "seer/plan/simulation.hpp"
#include "seer/train/memory_plan.hpp"
#include "seer/train/phases.hpp"

namespace seer::plan {

/// Of the time, to checkpoints and failures: not worth writing more often.
constexpr double kSmallLoss = 1e-3;

struct Report {
  train::MemoryPlan memory;
  std::int64_t budget_bytes = 0;
  bool fits = true;
  std::int64_t parameters = 0, images_per_rank = 0, ranks = 1, nodes = 1;

  // Of one update, seconds.
  double step_s = 0;
  double product_s = 0, stream_s = 0, exposed_s = 0, hidden_s = 0, straggle_s = 0, data_wait_s = 0;
  double making_s = 0;  ///< images decoded and cut on cores that compute, which are so much slower
  train::PhaseTimes phases;
  std::vector<Simulation::Traffic> traffic;     ///< calls and bytes of the mean update
  std::vector<Simulation::KindTotals> by_kind;  ///< its work

  double flops = 0;        ///< of one update and rank, replays included
  double model_flops = 0;  ///< without them
  double images_per_s = 0;
  double peak_share = 0;  ///< model_flops over step and peak
  std::string limit;      ///< what takes most; "data" where the step waits for images
  double limit_s = 0;     ///< and how long
  struct {
    double images_per_s = 0;         ///< at most, of the whole job; 0: no shards
    double wanted_images_per_s = 0;  ///< what the step would take without waiting
    double cores_of_node = 0;
    bool reading = false;  ///< the file system limits it, not the cores
  } loader;

  // Of the run.
  std::int64_t updates = 0;  ///< 0: not known, as are days and node_hours (schedule.epochs, without `images`)
  double days = 0, node_hours = 0;
  double checkpoint_bytes = 0, checkpoint_s = 0;
  double stall_s = 0;     ///< that the training stands still for one: all of it, or with checkpoint.async the copy
  double interval_s = 0;  ///< Young and Daly, see train::best_interval_s; 0: nothing fails
  double relaxed_interval_s = 0;  ///< longest that loses no more than kSmallLoss; 0: the best one loses more
  double lost_share = 0;          ///< of the time, to checkpoints and to what failures undo
  double read_bytes_per_s = 0;

  std::vector<std::string> suggestions;  ///< where it does not fit
  std::vector<std::string> notes;        ///< what the figures rest on
};

/// `images`: of the data set, for schedule.epochs; 0: not known.
/// Errors: those that the job would meet at its start (batch, groups, precision), Error(input).
Report predict(const config::Config& config, const config::Machine& machine, train::Topology topology,
               std::uint64_t images = 0);

std::string to_text(const Report& report, const config::Config& config, const config::Machine& machine);
std::string to_json(const Report& report);
/// The work of an update by kind beside what the machine's peak and memory allow at best: FLOPs, bytes, arithmetic
/// intensity; and at which share of the peak products would have to run for the whole update to reach `target`.
std::string to_roofline(const Report& report, const config::Config& config, const config::Machine& machine,
                        double target);

}  // namespace seer::plan
