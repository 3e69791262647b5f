// SPDX-License-Identifier: Apache-2.0
// `seer bench TASK`: timings of single parts. Each task declares its own options and --json.
#include <CLI/CLI.hpp>
#include <utility>
#include <vector>

#include "seer/app/command.hpp"
#include "seer/base/error.hpp"

namespace seer::app {
namespace {

struct Task {
  const char* name;
  const char* summary;
  Run (*add)(CLI::App&);
  const char* examples;
};

constexpr Task kTasks[] = {
    {"conv", "Convolutions of a model, one by one: forward and both backward passes", add_bench_conv,
     "Examples:\n  seer bench conv\n  OMP_NUM_THREADS=2 seer bench conv --json\n"},
    {"step", "Whole training steps on made-up crops, by phase", add_bench_step,
     "Examples:\n  seer bench step\n  mpirun -n 2 seer bench step --json\n"},
    {"data", "Reading, decoding and augmenting, without a model", add_bench_data,
     "Examples:\n  seer bench data\n  mpirun -n 2 seer bench data --json\n"},
    {"comm", "Collectives over all ranks, beside memcpy", add_bench_comm,
     "Examples:\n  mpirun -n 4 seer bench comm\n  mpirun -n 4 seer bench comm --max-bytes 1048576 --json\n"},
    {"checkpoint", "Writing and reading checkpoints", add_bench_checkpoint,
     "Examples:\n  seer bench checkpoint\n  mpirun -n 2 seer bench checkpoint --json\n"},
};

}  // namespace

Run add_bench(CLI::App& command) {
  command.require_subcommand(1);
  std::vector<std::pair<const CLI::App*, Run>> tasks;
  for (const auto& task : kTasks) {
    auto* sub = command.add_subcommand(task.name, task.summary);
    sub->footer("");
    auto run = task.add(*sub);
    if (sub->get_footer().empty()) sub->footer(task.examples);
    tasks.emplace_back(sub, std::move(run));
  }
  return [tasks](const comm::Communicator& world) {
    for (const auto& [sub, run] : tasks) {
      if (sub->parsed()) return run(world);
    }
    throw Error(ExitCode::internal, "bench without a task");
  };
}

}  // namespace seer::app
