// SPDX-License-Identifier: Apache-2.0
// `seer plan`: memory and time of a job before any node is booked. Runs the program's own Learner for a few updates on
// a planned machine, so no cost model has to repeat what the Learner does.
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

/// Share of the time lost to checkpoints and failures below which more frequent checkpoints are not worth it.
constexpr double kSmallLoss = 1e-3;

/// The cores of the same nodes, as other ranks of other threads.
struct Split {
  std::int64_t ranks = 1, ranks_per_node = 1, threads = 1;
  double step_s = 0;
  std::int64_t rank_bytes = 0;  ///< memory
  std::string refused{};        ///< why the job cannot run so; ""
  std::string note{};           ///< what would be another run; ""
};

/// Its Totals are those of one update on one rank; flops: replays and recomputation included.
struct Report : Simulation::Totals {
  train::MemoryPlan memory;
  std::int64_t budget_bytes = 0;
  bool fits = true;
  std::int64_t parameters = 0, images_per_rank = 0, ranks = 1, nodes = 1;

  // Seconds, for one update.
  double step_s = 0;
  double data_wait_s = 0;
  double making_s = 0;  ///< decoding and cropping images on cores that also compute: the time this adds to an update
  train::PhaseTimes phases;
  std::vector<Simulation::Traffic> traffic;     ///< calls and bytes, mean of the updates
  std::vector<Simulation::KindTotals> by_kind;  ///< work of the mean update

  double model_flops = 0;  ///< of one update on one rank, without replays and recomputation
  double images_per_s = 0;
  double peak_share = 0;  ///< model_flops / step_s / peak
  std::string limit;      ///< the largest part; "data" if the step waits for images
  double limit_s = 0;     ///< seconds that this part takes
  struct {
    double images_per_s = 0;         ///< upper limit for the whole job; 0: no shards
    double wanted_images_per_s = 0;  ///< what the step would consume if it never waited
    double cores_of_node = 0;
    bool reading = false;  ///< true if the file system is the limit, not the cores
  } loader;

  // Of the whole run.
  std::int64_t updates = 0;  ///< 0: unknown, as are days and node_hours (schedule.epochs, without `images`)
  double days = 0, node_hours = 0;
  double checkpoint_bytes = 0, checkpoint_s = 0;
  double stall_s = 0;             ///< training stops this long per checkpoint; with checkpoint.async only for the copy
  double interval_s = 0;          ///< best interval (Young/Daly, see run::best_interval_s); 0: nothing fails
  double relaxed_interval_s = 0;  ///< longest interval that loses at most kSmallLoss; 0: the best one loses more
  double lost_share = 0;          ///< share of the time lost to checkpoints and to work undone by failures
  double read_bytes_per_s = 0;

  std::vector<std::string> suggestions;  ///< changes that make it fit, if it does not
  std::vector<std::string> notes;        ///< what the figures are based on
  std::vector<Split> splits;             ///< for the caller to fill in
};

/// `images`: size of the data set, needed for schedule.epochs; 0: unknown.
/// Errors: Error(input), and those that the job itself would raise at its start (batch, groups, precision).
Report predict(const config::Config& config, const config::Machine& machine, train::Topology topology,
               std::uint64_t images = 0);

/// What precision.compute = "auto" takes there: bf16 if the peaks show matrix units for it, else fp32.
std::string precision_for(const config::Machine& machine);
/// Host machines: every number of threads that divides the cores of a node, the whole job planned anew with as many
/// images in all, and in a BatchNorm group. Empty for devices, and for a job that does not fill its nodes.
std::vector<Split> splits(const config::Config& config, const config::Machine& machine, train::Topology topology);

std::string to_text(const Report& report, const config::Config& config, const config::Machine& machine);
std::string to_json(const Report& report);
/// The table of report.splits.
std::string to_splits(const Report& report);
/// The work of an update by kind (FLOPs, bytes, arithmetic intensity) beside the least time that the machine's peak and
/// memory allow; also the share of the peak that products must reach for the whole update to reach `target`.
std::string to_roofline(const Report& report, const config::Config& config, const config::Machine& machine,
                        double target);

}  // namespace seer::plan
