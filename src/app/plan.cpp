// SPDX-License-Identifier: Apache-2.0
// seer plan: memory and time of a job, on a machine that need not be available.
#include "seer/plan/plan.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <utility>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/build_info.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/session.hpp"
#include "seer/plan/calibrate.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string config, machine, calibrate;
  std::vector<std::string> set;
  int ranks = 1, per_node = 0;
  std::uint64_t images = 0;
  double measured_ms = 0, target = 0.45;
  bool json = false, roofline = false, splits = false;
  plan::CalibrateOptions measure;
};

/// Says which figures were measured and which were not.
std::string comment(const Options& options, int ranks) {
  std::string text = fmt::format(
      "Measured by seer plan --calibrate on {} ranks: {}\nNot measured: failures; threads; network.cluster (that of "
      "the node)",
      ranks, device::describe());
  if (ranks == 1) text += "; network (one rank)";
  if (options.measure.shards.empty()) text += "; data (estimates; --shards measures them)";
  return text + "; fp16_o1 where the library lacks it (bf16's).";
}

int write_machine(const Options& options, const comm::Communicator& world) {
  namespace fs = std::filesystem;
  // Written to another file, then renamed: an interruption never leaves an empty or partial file under the final name.
  std::error_code ec;
  const bool special = fs::exists(options.calibrate, ec) && !fs::is_regular_file(options.calibrate, ec);
  const std::string beside = special ? options.calibrate : options.calibrate + ".part";
  const auto write = [&](const std::string& text) {
    comm::agree(world, "writing the machine file", [&] {
      if (!world.is_root()) return;
      std::ofstream out(beside, std::ios::trunc);
      out << text;
      out.close();
      if (out && !special && !text.empty()) fs::rename(beside, options.calibrate, ec);
      const bool failed = !out || ec;
      if (!special && (failed || text.empty())) fs::remove(beside, ec);
      if (failed) throw Error(ExitCode::file, "cannot write " + options.calibrate, "give a path you may write to");
    });
  };
  ec.clear();
  write("");  // fails now if the path cannot be written, not after a minute of measuring
  const auto machine = plan::calibrate(world, options.measure);
  write(config::to_toml(machine, comment(options, world.size())));
  const auto network = world.size() > 1 ? fmt::format("{:.2f} GB/s", machine.node.bytes_per_s / 1e9)
                                        : std::string("not measured (one rank)");
  log::info(fmt::format("{}: {:.1f} GFLOP/s fp32, {:.1f} bf16, memory {:.1f} GB/s a rank, all-reduce {}",
                        options.calibrate, machine.fp32 / 1e9, machine.bf16 / 1e9, machine.bytes_per_s / 1e9, network));
  return 0;
}

/// Compares a published or measured time of an update with the plan.
std::string compared(const plan::Report& r, double measured_ms) {
  const double s = 1e-3 * measured_ms, rest = r.stream_s + r.exposed_s + r.straggle_s + r.making_s + r.data_wait_s;
  auto text = fmt::format("\nmeasured {:.4g} ms an update: {:.2g} of the planned {:.4g} ms; {:.1f} % of the peak",
                          measured_ms, s / r.step_s, 1e3 * r.step_s, 100 * r.peak_share * r.step_s / s);
  if (s > rest) {
    text += fmt::format("; explained by products at {:.2f} of the machine file's rates, the rest as planned",
                        r.product_s / (s - rest));
  } else {
    text += fmt::format(
        "; shorter than the {:.4g} ms planned for everything but products: the machine file does not fit this time",
        1e3 * rest);
  }
  return text + "\n";
}

/// Adds a note if 16 bits are slower than single precision.
void compare_with_single(config::Config config, const config::Machine& machine, train::Topology topology,
                         plan::Report& report) {
  const auto compute = std::exchange(config.precision.compute, "fp32");
  if (compute == "fp32") return;
  try {
    const auto single = plan::predict(config, machine, topology);
    if (single.step_s > report.step_s) return;
    report.notes.push_back(
        fmt::format("{} saves memory, but no time: an update in fp32 is planned to take {}, in {} {}", compute,
                    duration_text(single.step_s), compute, duration_text(report.step_s)));
  } catch (const Error&) {  // fp32 cannot be planned: nothing to compare with
  }
}

int run(const Options& options, const comm::Communicator& world) {
  if (!options.calibrate.empty()) return write_machine(options, world);
  if (options.config.empty() || options.machine.empty()) {
    throw Error(ExitCode::input, "plan needs a configuration and --machine FILE",
                "seer plan inputs/seer_256gf.toml --machine inputs/machines/dgx_h100.toml --ranks 64")
        .as_agreed();
  }
  auto config = load_config(world, options.config, options.set, AutoPrecision::keep);
  config::Machine machine;
  comm::agree(world, "reading the machine file", [&] { machine = config::load_machine(options.machine); });
  std::vector<std::string> notes;
  const auto images = plan::look_at_data(world, config, machine, notes);
  if (!world.is_root()) return 0;
  if (auto& compute = config.precision.compute; compute == "auto") {
    compute = plan::precision_for(machine);
    notes.push_back(
        fmt::format("precision.compute = \"auto\" is {} there: the peaks are {:.4g} TFLOP/s in bf16, {:.4g} in "
                    "fp32",
                    compute, 1e-12 * machine.bf16, 1e-12 * machine.fp32));
  }
  const auto per_node = options.per_node > 0 ? options.per_node : static_cast<int>(machine.ranks_per_node);
  const train::Topology topology = {.ranks = options.ranks, .ranks_per_node = std::min(per_node, options.ranks)};
  auto report = plan::predict(config, machine, topology, options.images > 0 ? options.images : images);
  report.notes = std::move(notes);
  report.splits = plan::splits(config, machine, topology);
  compare_with_single(config, machine, topology, report);
  if (options.json) {
    fmt::print("{}\n", plan::to_json(report));
  } else {
    fmt::print("{}", plan::to_text(report, config, machine));
    if (options.roofline) fmt::print("\n{}", plan::to_roofline(report, config, machine, options.target));
    if (options.splits) fmt::print("\n{}", plan::to_splits(report));
    if (options.measured_ms > 0) fmt::print("{}", compared(report, options.measured_ms));
  }
  return 0;
}

}  // namespace

Run add_plan(CLI::App& command) {
  auto options = std::make_shared<Options>();
  auto* calibrate =
      command.add_option("--calibrate", options->calibrate, "Measure this machine and write its file instead");
  command.add_option("config", options->config, "Configuration file (TOML)");
  add_set(command, options->set);
  command.add_option("--machine", options->machine, "Machine file (inputs/machines/*.toml)");
  command.add_option("--ranks", options->ranks, "Ranks of the job")->check(CLI::Range(1, 1 << 24));
  command.add_option("--per-node", options->per_node, "Ranks on a node (default: the machine's)")
      ->check(CLI::Range(1, 1 << 24))
      ->default_str("");
  command
      .add_option("--images", options->images,
                  "Images of the data set, for schedule.epochs (default: those of data.shards, where they are here)")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 50))
      ->default_str("");
  auto* measured =
      command.add_option("--measured-ms", options->measured_ms, "A measured time of an update, to compare with")
          ->check(CLI::Range(1e-3, 1e9))
          ->default_str("");
  auto* roofline = command.add_flag("--roofline", options->roofline,
                                    "Also the work by kind beside what peak and memory allow at best");
  command.add_option("--target", options->target, "With --roofline: share of the peak that is aimed at")
      ->check(CLI::Range(0.001, 1.0))
      ->needs(roofline);
  auto* splits = command.add_flag("--splits", options->splits,
                                  "Also the same nodes with other ranks and threads, where ranks compute on cores");
  command.add_flag("--json", options->json, "One JSON object instead of tables")
      ->excludes(measured)
      ->excludes(roofline)
      ->excludes(splits);
  // Planning and measuring exclude each other.
  for (auto* option : command.get_options())
    if (option != calibrate && option != command.get_help_ptr()) option->excludes(calibrate);
  command.add_option("--shards", options->measure.shards, "With --calibrate: a data set to measure the loader on")
      ->needs(calibrate);
  command.add_option("--folder", options->measure.folder, "With --calibrate: where the file system is measured")
      ->needs(calibrate);
  command.add_option("--seconds", options->measure.seconds, "With --calibrate: for each figure")
      ->check(CLI::Range(0.001, 60.0))
      ->needs(calibrate);
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
