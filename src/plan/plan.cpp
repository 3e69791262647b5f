// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "seer/base/error.hpp"
#include "seer/run/saver.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/optimizer.hpp"

namespace seer::plan {
namespace {

constexpr std::int64_t kUpdates = 4;

/// Seconds of one core for one image: decoding it, and cropping and augmenting all its crops. A device makes the crops
/// itself.
double data_core_s(const config::Config& config, const config::Machine& machine) {
  double pixels = 0;
  for (const auto& crops : config.crops)
    if (machine.backend == "host") pixels += static_cast<double>(crops.count * crops.size * crops.size);
  return machine.mean_image_pixels / machine.decode_pixels_per_s + pixels / machine.crop_pixels_per_s;
}

/// Runs updates of the Learner on the simulated machine and adds their sums to the report `times` times.
void add_updates(const config::Config& config, const config::Machine& machine, train::Topology topology, double times,
                 Report& report) {
  Simulation simulation(machine, std::min(topology.ranks_per_node, topology.ranks));
  const auto comm = comm::Communicator::planned(topology.ranks, topology.ranks_per_node, simulation);
  train::Phases phases(&simulation);
  train::Learner learner(config, comm, phases, report.memory, train::planned_backend(topology));
  const auto batch = train::planned_batch(config, topology.ranks);
  const auto after_freezing = learner.model().parameters().thawed_after();
  learner.method().assume_filled();
  learner.update(batch, after_freezing, 0.1);
  simulation.restart();
  phases.restart();
  for (std::int64_t t = 1; t <= kUpdates; ++t) {
    learner.update(batch, after_freezing + t, 0.1);
    phases.end_update();
  }
  report.step_s += times * simulation.elapsed_s();
  add<Simulation::Totals>(report, simulation.totals(), times);
  for (std::size_t p = 0; p < train::kPhases; ++p) report.phases.ms[p] += times * phases.total().ms[p];
  for (const auto& row : simulation.traffic()) add_row(report.traffic, row, times);
  for (const auto& row : simulation.by_kind()) add_row(report.by_kind, row, times);
  report.parameters = learner.model().parameters().parameter_count();
  report.checkpoint_bytes = 4.0 * static_cast<double>(2 * report.parameters + learner.model().buffers().block_elems());
}

/// The mean update: of guard.replay_every updates, one does its passes twice. Divides last: whole numbers stay whole.
void simulate(config::Config config, const config::Machine& machine, train::Topology topology, Report& report) {
  const auto every = config.guard.replay_every;
  config.guard.replay_every = 0;
  if (every != 1) add_updates(config, machine, topology, every == 0 ? 1 : static_cast<double>(every - 1), report);
  config.guard.replay_every = 1;
  if (every != 0) add_updates(config, machine, topology, 1, report);
  const auto count = static_cast<double>(kUpdates) * std::max(1.0, static_cast<double>(every));
  report.step_s /= count;
  for (auto& ms : report.phases.ms) ms /= count;
  report.phases.updates = 1;
  const auto divide = [&](auto& sums) {
    for (double* sum : sums.sums()) *sum /= count;
  };
  divide(report);
  std::ranges::for_each(report.traffic, divide);
  std::ranges::for_each(report.by_kind, divide);
}

double flops_without_replays(config::Config config, const config::Machine& machine, train::Topology topology) {
  config.parallel.recompute = "none";
  config.guard.replay_every = 0;
  Report report;
  report.memory = train::plan_memory(config, topology, 0, 0);
  simulate(config, machine, topology, report);
  return report.flops;
}

void add_data(const config::Config& config, const config::Machine& machine, Report& report) {
  const auto beside = report.ranks / report.nodes;
  const double crowding = std::max(1.0, static_cast<double>(beside) / static_cast<double>(machine.ranks_per_node));
  const bool own_cores = machine.reader_cores > 0;
  const double cores = own_cores ? machine.reader_cores : static_cast<double>(machine.cores_per_rank);
  const double making_s = crowding * static_cast<double>(report.images_per_rank) * data_core_s(config, machine) / cores;
  const auto batch = static_cast<double>(config.data.global_batch);
  const double reading_s = batch * machine.mean_image_bytes / machine.read_bytes_per_s;
  if (config.data.source != "crops") {
    // Images are made ahead of the step. If they use the step's own cores, the step gets slower but does not wait.
    report.making_s = own_cores ? 0 : (1 - machine.overlap) * making_s;
    report.step_s += report.making_s;
    report.data_wait_s = std::max(0.0, std::max(making_s, reading_s) - report.step_s);
    report.loader = {.images_per_s = batch / std::max(making_s, reading_s),
                     .wanted_images_per_s = batch / report.step_s,
                     .cores_of_node = cores * static_cast<double>(std::min(machine.ranks_per_node, beside)),
                     .reading = reading_s > making_s};
  }
  report.step_s += report.data_wait_s;
}

/// Seconds to copy what a rank saves, before it is written beside the training.
double copying_s(const config::Machine& machine, const Report& report) {
  if (machine.backend == "host")  // one read and one write; the other ranks do the same at the same time
    return 2 * static_cast<double>(report.memory.footprint.checkpoint) / (machine.bytes_per_s * machine.efficiency);
  // To the host's memory, and one more copy there, assumed to be as fast.
  return 2 * report.checkpoint_bytes / report.ranks / machine.host_link_bytes_per_s;
}

void add_run(const config::Config& config, const config::Machine& machine, Report& report) {
  constexpr double kDay = 86400;
  const auto nodes = static_cast<double>(report.nodes);
  report.checkpoint_s = report.checkpoint_bytes / machine.write_bytes_per_s;
  report.stall_s = config.checkpoint.async ? copying_s(machine, report) : report.checkpoint_s;
  const double failures_per_s = machine.failures_per_node_per_day * nodes / kDay;
  if (failures_per_s > 0) {
    const double writing_s = config.checkpoint.async ? report.checkpoint_s : 0;
    report.interval_s = std::max(report.step_s,  // at least one update
                                 run::best_interval_s(report.stall_s, writing_s, 1 / failures_per_s));
    report.lost_share = run::lost_share(report.stall_s, writing_s, report.interval_s, 1 / failures_per_s);
    // lost_share() = kSmallLoss, solved for the interval.
    const double linear = kSmallLoss / failures_per_s - writing_s;
    const double square = linear * linear - 2 * report.stall_s / failures_per_s;
    if (report.lost_share < kSmallLoss) report.relaxed_interval_s = linear + std::sqrt(square);
  }
  const double run_s = static_cast<double>(report.updates) * report.step_s * (1 + report.lost_share);
  report.days = run_s / kDay;
  report.node_hours = run_s / 3600 * nodes;
  report.images_per_s = static_cast<double>(config.data.global_batch) / report.step_s;
  report.peak_share = report.model_flops / report.step_s / machine.peak(config.precision.compute);
  report.read_bytes_per_s = report.images_per_s * machine.mean_image_bytes;
  const std::array<std::pair<const char*, double>, 5> parts = {{{"convolutions and products", report.product_s},
                                                                {"memory-bound kernels", report.stream_s},
                                                                {"communication", report.exposed_s},
                                                                {"the slowest rank", report.straggle_s},
                                                                {"making images", report.making_s}}};
  const auto most = std::ranges::max_element(parts, {}, [](const auto& part) { return part.second; });
  // If the step waits for its images, nothing else can make it faster, even if it takes more time.
  report.limit = report.data_wait_s > 0 ? "data" : most->first;
  report.limit_s = report.data_wait_s > 0 ? report.data_wait_s : most->second;
}

/// Changes that make the job fit, the gentlest first; each line is complete by itself. Smaller batches come last: the
/// largest that fits with the present settings, then any larger one with all of the above.
std::vector<std::string> suggest(const config::Config& config, train::Topology topology, std::int64_t budget,
                                 std::int64_t base) {
  std::vector<std::string> out;
  const auto try_with = [&](const config::Config& changed) {
    try {
      const auto bytes = train::plan_memory(changed, topology, budget, base).footprint.total();
      if (bytes > budget) return false;
      std::vector<std::string> changes;
      const auto& now = changed.parallel;
      if (now.recompute != config.parallel.recompute)
        changes.push_back(fmt::format("parallel.recompute = \"{}\"", now.recompute));
      if (now.shard != config.parallel.shard) changes.push_back(fmt::format("parallel.shard = \"{}\"", now.shard));
      if (const auto batch = changed.data.global_batch; batch != config.data.global_batch)
        changes.push_back(fmt::format("data.global_batch = {} ({} images a rank)", batch, batch / topology.ranks));
      out.push_back(fmt::format("{}: {:.2f} GiB", fmt::join(changes, ", "), static_cast<double>(bytes) / (1 << 30)));
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  auto changed = config;
  changed.parallel.recompute = "auto";
  if (try_with(changed)) return out;
  for (const char* shard : {"optimizer", "gradients", "parameters"}) {
    if (topology.ranks == 1) break;
    changed.parallel.shard = shard;
    if (try_with(changed)) return out;
  }
  std::int64_t best = 0;
  for (auto smaller : {config, changed}) {
    for (auto images = config.data.global_batch / topology.ranks / 2; images > best; images /= 2) {
      smaller.data.global_batch = images * topology.ranks;
      if (try_with(smaller)) best = images;
    }
  }
  if (!out.empty()) return out;
  return {"no recomputation, sharding or smaller batch makes it fit: use more ranks or a smaller model"};
}

/// Throws the Error(input) of the job's own start: a precision that the library lacks, two ranks on a device.
void refuse_what_the_job_would(const config::Config& config, const config::Machine& machine, train::Topology topology) {
  if (topology.host_library) return train::check_precision(config.precision, *train::planned_backend(topology));
  if (topology.ranks_per_node <= machine.ranks_per_node) return;
  throw Error(ExitCode::input,
              fmt::format("{} ranks on a node of {}, which has {} devices: a device serves one rank",
                          topology.ranks_per_node, machine.name, machine.ranks_per_node),
              fmt::format("--per-node {}", machine.ranks_per_node));
}

/// Memory that a rank may use: the machine's share for it, or less if the job's budget is lower.
std::int64_t budget_of(const config::Config& config, const config::Machine& machine, train::Topology topology) {
  const auto beside = static_cast<double>(std::min(topology.ranks_per_node, topology.ranks));
  const auto share = std::min(1.0, static_cast<double>(machine.ranks_per_node) / beside);
  const auto has = static_cast<std::int64_t>(share * machine.rank_bytes);
  const auto wanted = config.parallel.memory_budget_bytes;
  return wanted > 0 ? std::min(wanted, has) : has;
}

}  // namespace

Report predict(const config::Config& config_in, const config::Machine& machine, train::Topology topology,
               std::uint64_t images) {
  auto config = config_in;
  topology.host_library = machine.backend == "host";
  topology.on_device = !topology.host_library;
  refuse_what_the_job_would(config, machine, topology);
  Report report;
  report.ranks = topology.ranks;
  report.nodes = (topology.ranks + topology.ranks_per_node - 1) / topology.ranks_per_node;
  report.images_per_rank = config.data.global_batch / topology.ranks;
  const auto base = static_cast<std::int64_t>(machine.reserved_bytes);
  report.budget_bytes = budget_of(config, machine, topology);
  std::string smallest;
  try {
    report.memory = train::plan_memory(config, topology, report.budget_bytes, base);
  } catch (const Error& error) {
    if (config.parallel.recompute != "auto") throw;
    smallest = error.remedy().substr(0, error.remedy().find(';'));
    config.parallel.recompute = "block";  // reported below as not fitting; other errors are thrown again here
    report.memory = train::plan_memory(config, topology, report.budget_bytes, base);
  }
  report.fits = report.memory.footprint.total() <= report.budget_bytes;
  if (!report.fits) report.suggestions = suggest(config_in, topology, report.budget_bytes, base);
  if (!smallest.empty()) report.suggestions.push_back(smallest);
  simulate(config, machine, topology, report);
  report.model_flops = flops_without_replays(config, machine, topology);
  if (config.schedule.epochs <= 0 || images > 0) {
    report.updates = train::total_updates(config, images, 0);
    train::Schedule(train::in_updates(config, images), report.updates);  // throws what the job would throw
  }
  // Ranks with equal work do not take equal time, and in every update all ranks wait for each other.
  if (report.ranks > 1) report.straggle_s += machine.straggle * (report.product_s + report.stream_s);
  report.step_s += report.straggle_s;
  add_data(config, machine, report);
  add_run(config, machine, report);
  return report;
}

}  // namespace seer::plan
