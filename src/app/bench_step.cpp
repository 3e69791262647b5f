// SPDX-License-Identifier: Apache-2.0
// seer bench step: whole updates on crops already in memory, so that only the step itself is measured.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "bench_layers.hpp"
#include "bench_passes.hpp"
#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/config/machine.hpp"
#include "seer/device/session.hpp"
#include "seer/plan/plan.hpp"
#include "seer/plan/trial.hpp"
#include "seer/run/records.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/memory_plan.hpp"
#include "seer/train/optimizer.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string config, machine;
  std::vector<std::string> set;
  std::int64_t updates = 10, warmup = 2;
  bool json = false, passes = false, layers = false;
};

/// Share of the machine file's peak: the model's arithmetic, as `seer plan` counts it, over the measured time.
double peak_share(const Options& options, config::Config config, const comm::Communicator& world, double step_ms) {
  const auto machine = config::load_machine(options.machine);
  config.data.source = "crops";  // as here: the step waits for no data
  const auto per_node = std::min(world.size(), static_cast<int>(machine.ranks_per_node));
  const auto planned = plan::predict(config, machine, {.ranks = world.size(), .ranks_per_node = per_node});
  return 1e3 * planned.model_flops / step_ms / machine.peak(config.precision.compute);
}

/// What a recorder sees in as many updates again.
std::vector<device::Recorder::Row> record(const Options& options, train::Learner& learner, const data::Batch& batch,
                                          device::Recorder::Convolutions convolutions) {
  device::Recorder recorder(learner.queue(), convolutions);
  for (std::int64_t t = 0; t < options.updates; ++t) {
    learner.update(batch, options.warmup + options.updates + t, 0.1);
    recorder.read();
  }
  return recorder.rows();
}

int run(const Options& options, const comm::Communicator& world) {
  const auto config = load_config(world, options.config, options.set);
  const auto free_before = device::available_bytes(device::Space::device);
  train::Phases phases;
  train::Learner learner(config, world, phases, train::plan_memory(config, world), train::make_backend(config, world));
  const plan::MadeUpBatch crops(config, world, learner.space());
  for (std::int64_t t = 0; t < options.warmup; ++t) learner.update(crops.batch, t, 0.1);
  world.barrier();
  run::TrafficLedger traffic([&learner] { return learner.traffic(); });
  traffic.close(run::TrafficLedger::Use::set_up);
  phases.restart();
  std::vector<double> step_ms;
  for (std::int64_t t = 0; t < options.updates; ++t) {
    const Clock clock;
    learner.update(crops.batch, options.warmup + t, 0.1);
    phases.end_update();
    step_ms.push_back(clock.ms());
  }
  traffic.close(run::TrafficLedger::Use::update);
  auto messages = traffic.rows();
  std::erase_if(messages, [](const auto& row) { return row.use != run::TrafficLedger::Use::update; });
  const auto summary = train::reduce(phases.total(), world);
  const auto peak = world.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max);
  // Device memory that the updates have taken, including libraries (and other processes meanwhile).
  const auto free_after = device::available_bytes(device::Space::device);
  const auto on_device = learner.space() == device::Space::device && free_before > free_after
                             ? static_cast<std::int64_t>(free_before - free_after)
                             : 0;
  const auto device_bytes = world.all_reduce(on_device, comm::Op::max);
  // The maximum over ranks of each rank's median: noise of a shared machine only ever adds time.
  std::sort(step_ms.begin(), step_ms.end());
  const double median = world.all_reduce(step_ms[step_ms.size() / 2], comm::Op::max);
  const double fastest = world.all_reduce(step_ms.front(), comm::Op::max);
  Passes passes{.updates = options.updates};
  Layers layers{.updates = options.updates, .segments = static_cast<int>(learner.model().trunk().segments())};
  if (options.passes) passes.rows = record(options, learner, crops.batch, device::Recorder::Convolutions::by_direction);
  if (options.layers) {
    layers.rows = record(options, learner, crops.batch, device::Recorder::Convolutions::by_shape);
    layers.alone_ms = measure_alone(world, config, learner);
  }
  if (options.passes) passes.memory_bytes_per_ms = measure_memory(world, learner.space());
  if (!world.is_root()) return 0;
  const double share = options.machine.empty() ? 0 : peak_share(options, config, world, median);
  const double images_per_s = 1000.0 * static_cast<double>(config.data.global_batch) / median;
  if (options.json) {
    nlohmann::json out = {{"where", learner.describe()},
                          {"space", learner.space() == device::Space::device ? "device" : "host"},
                          {"step_ms", median},
                          {"step_min_ms", fastest},
                          {"images_per_s", images_per_s},
                          {"images", config.data.global_batch},
                          {"ranks", world.size()},
                          {"threads", device::threads()},
                          {"updates", options.updates},
                          {"peak_rank_bytes", peak},
                          {"device_bytes", device_bytes},
                          {"activation_bytes", learner.activation_peak_bytes()},
                          {"parameters", learner.model().parameters().parameter_count()}};
    for (std::size_t p = 0; p < train::kPhases; ++p)
      out[std::string(train::name_of(static_cast<train::Phase>(p))) + "_ms"] = summary.mean_ms[p];
    if (share > 0) out["peak_share"] = share;
    if (options.passes) out["passes"] = to_json(passes);
    if (options.layers) out["layers"] = to_json(layers);
    out["traffic"] =
        nlohmann::json::parse(run::to_json(messages, options.updates, /*logged=*/0, world.size()))["traffic"];
    fmt::print("{}\n", out.dump());
    return 0;
  }
  log::info(fmt::format("{}\n{} ranks of {} threads, {} images an update", learner.describe(), world.size(),
                        device::threads(), config.data.global_batch));
  log::info(train::to_table(summary));
  if (options.passes) log::info(to_table(passes));
  if (options.layers) log::info(to_table(layers));
  if (const auto table = to_table(messages, options.updates); !table.empty()) log::info(table);
  log::info(fmt::format("step {:.1f} ms (median), {:.1f} ms (fastest), {:.2f} images/s, peak {:.2f} GiB a rank", median,
                        fastest, images_per_s, static_cast<double>(peak) / (1 << 30)));
  if (device_bytes > 0)
    log::info(fmt::format("{:.2f} GiB of the device", static_cast<double>(device_bytes) / (1 << 30)));
  if (share > 0) log::info(fmt::format("{:.1f} % of the machine file's peak (replays not counted)", 100 * share));
  return 0;
}

}  // namespace

Run add_bench_step(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("config", options->config, "Configuration file (TOML)")->required();
  add_set(command, options->set);
  command.add_option("--machine", options->machine, "Machine file: also the share of its peak");
  command.add_option("--updates", options->updates, "Updates to time")->check(CLI::PositiveNumber);
  command.add_option("--warmup", options->warmup, "Updates before")->check(CLI::NonNegativeNumber);
  command.add_flag("--passes", options->passes, "As many updates again: time and bytes of each kind of work");
  command.add_flag("--layers", options->layers,
                   "As many updates again: time of each block, and what its convolutions take alone");
  command.add_flag("--json", options->json, "One JSON object instead of tables");
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
