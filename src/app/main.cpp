// SPDX-License-Identifier: Apache-2.0
// The program: the device first, then ranks, the log, the command line; then the command. How errors end it is here too
// (design section 7).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <iostream>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seer/app/command.hpp"
#include "seer/base/build_info.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/crash.hpp"
#include "seer/comm/signals.hpp"
#include "seer/config/config.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/session.hpp"

namespace seer::app {
namespace {

struct Command {
  const char* name;
  const char* summary;
  Run (*add)(CLI::App&);
  const char* examples;
};

constexpr Command kCommands[] = {
    {"pack", "Folders, archives or lists of images -> HDF5 shards; all ranks share the work", add_pack,
     "Examples:\n"
     "  mpirun -n 4 seer pack photos/ -o shards\n"
     "  seer pack train.tar.gz -o shards/train --labels folder --split train\n"},
    {"synth", "Procedural labelled images -> HDF5 shards (the embedded default data)", add_synth,
     "Examples:\n"
     "  seer synth -o shards/train --classes 10 --images 5000 --size 96 --seed 1\n"},
    {"inspect", "What a shard, checkpoint or weights file holds", add_inspect,
     "Examples:\n"
     "  seer inspect shards/train-00000.h5\n"
     "  seer inspect runs/demo/checkpoints/update-00001000 --json\n"},
    {"pretrain", "SwAV pre-training; starts, or resumes by itself", add_pretrain,
     "Examples:\n"
     "  mpirun -n 2 seer pretrain inputs/tiny.toml\n"
     "  mpirun -n 2 seer pretrain inputs/demo.toml --set swav.epsilon=0.05 --set crops.1.count=6\n"
     "Keys of the file and of --set: seer --help-config\n"},
    {"eval", "How good features are: knn", add_eval,
     "Examples:\n"
     "  seer eval knn runs/demo/checkpoints/update-00001000 --train 'shards/train/*.h5' --test 'shards/test/*.h5'\n"},
    {"features", "Checkpoint or weights + shards -> HDF5 table of features", add_features,
     "Examples:\n"
     "  mpirun -n 4 seer features weights.h5 shards/train -o features.h5\n"},
    {"import", "safetensors (names of torchvision, timm, transformers, VISSL ...) -> weights file", add_import,
     "Examples:\n"
     "  seer import regnet_y_400mf.safetensors weights.h5 --preset 400mf\n"},
    {"export", "Checkpoint or weights -> safetensors", add_export,
     "Examples:\n"
     "  seer export runs/demo/checkpoints/update-00001000 trunk.safetensors --names torchvision\n"},
    {"plan", "Memory and time of a job on a machine, before any node is booked", add_plan,
     "Examples:\n"
     "  seer plan inputs/seer_256gf.toml --machine inputs/machines/dgx_h100.toml --ranks 64\n"
     "  mpirun -n 2 seer plan --calibrate mine.toml\n"
     "  seer plan inputs/bench_8gf.toml --machine mine.toml --ranks 2 --set parallel.recompute=auto\n"},
    {"bench", "Speed of the parts: conv, step, data, comm, checkpoint", add_bench,
     "Examples:\n"
     "  seer bench conv --json\n"
     "  mpirun -n 4 seer bench comm\n"},
};

/// Ends as this error wants. Returns the exit code where all ranks are known to come here; does not return otherwise.
int end_with(const Error& error, const comm::Communicator& world) {
  const int code = static_cast<int>(error.code());
  // The others may wait in a collective for a rank that is on its way out: only ending them all is safe.
  if (!error.agreed() && world.size() > 1) comm::die_of(error);
  if (world.is_root()) {
    log::error(error.message());
    comm::leave_trace_of(error);
  }
  return code;
}

/// Commands that compute. The others, and what only plans, also go on nodes without a device (a device build).
bool computes(std::span<char* const> arguments) {
  const std::string_view command = arguments.size() > 1 ? arguments[1] : "";
  const auto given = [&](std::string_view option) {
    return std::ranges::any_of(arguments, [&](const char* a) { return std::string_view(a).starts_with(option); });
  };
  if (command == "plan") return given("--calibrate");
  if (command == "bench" && given("--plan")) return false;
  return command == "pretrain" || command == "eval" || command == "features" || command == "bench";
}

/// Why there is no device: thrown once the ranks know each other, so that they end in order, with one line.
std::optional<Error> bind_device() {
  try {
    device::bind_device();
    return {};
  } catch (const Error& error) {
    return error;
  }
}

/// Collective. Error(device), agreed, where a rank has no device. That ranks share one is no error as long as they
/// compute on the host.
void require_devices(const std::optional<Error>& refusal, const comm::Communicator& world) {
  if (refusal && refusal->code() == ExitCode::input) throw *refusal;
  // Without Kokkos' Cuda everything computes on the host.
  if (!device::kernels_need_device()) return;
  comm::agree(world, "binding devices", [&] {
    if (refusal) throw *refusal;
  });
  if (device::bound_device() < 0) return;
  device::set_sharing(device::shared_device(world.all_gather(log::host_name() + " " + device::device_id())));
}

int run_command(const Run& run, const std::optional<Error>& refusal, const comm::Communicator& world) {
  try {
    require_devices(refusal, world);
    const device::Session device;
    return run(world);
  } catch (const Error& error) {
    return end_with(error, world);
  } catch (const std::bad_alloc&) {
    return end_with(comm::out_of_memory(), world);
  } catch (const std::exception& error) {
    return end_with(Error(ExitCode::internal, error.what(), "this is a defect of seer; please report it"), world);
  }
}

/// Help and version go to stdout with exit code 0; anything else is one line and exit code 2. The command line is the
/// same on every rank, so rank 0 speaks for all.
int end_of_parsing(const CLI::App& app, const CLI::ParseError& error, const comm::Communicator& world) {
  if (error.get_exit_code() == 0) {
    return world.is_root() ? app.exit(error, std::cout, std::cerr) : 0;
  }
  std::string help = "seer", what = error.what();
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    help += " " + at->get_name();
  }
  if (app.get_subcommands().empty()) {
    const auto words = app.remaining();
    if (!words.empty()) {
      what = (words.front().starts_with("-") ? "unknown option \"" : "unknown command \"") + words.front() + "\"";
    }
    what += "; commands:";
    for (const auto& command : kCommands) what += std::string(" ") + command.name;
  }
  if (world.is_root()) log::error(what + "; see " + help + " --help");
  return static_cast<int>(ExitCode::input);
}

int main(int argc, char** argv) {
  // MPI and Kokkos settle on the device that is current when they start.
  const auto refusal = computes({argv, static_cast<std::size_t>(argc)}) ? bind_device() : std::nullopt;
  const comm::MpiSession mpi(argc, argv);
  const auto world = comm::Communicator::world();
  log::start(world.rank(), world.size());
  comm::catch_crashes();

  CLI::App app("Pre-trains image models without labels: RegNetY trunks with SwAV, on one core or many nodes.", "seer");
  app.set_version_flag("--version", build_info());
  app.add_flag_callback(
      "--help-config", [] { throw CLI::CallForVersion(config::describe_keys(), 0); },
      "Every key of a configuration file with default, range and meaning");
  app.require_subcommand(1);
  app.footer("seer COMMAND --help tells more of a command, with examples. mpirun -n R seer ... runs it on R ranks.");

  std::vector<std::pair<CLI::App*, Run>> commands;
  for (const auto& command : kCommands) {
    auto* sub = app.add_subcommand(command.name, command.summary);
    sub->footer("");  // a sub-command inherits ours, which is not about it
    auto run = command.add(*sub);
    if (sub->get_footer().empty()) sub->footer(command.examples);
    commands.emplace_back(sub, std::move(run));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return end_of_parsing(app, error, world);
  }
  for (const auto& [sub, run] : commands) {
    if (sub->parsed()) return run_command(run, refusal, world);
  }
  return static_cast<int>(ExitCode::internal);  // require_subcommand leaves no such case
}

}  // namespace
}  // namespace seer::app

int main(int argc, char** argv) {
  try {
    // Other commands end by a signal as any program does.
    if (argc > 1 && std::string_view(argv[1]) == "pretrain") seer::comm::catch_stop_signals();
    return seer::app::main(argc, argv);
  } catch (const seer::Error& error) {
    // Only starting MPI or declaring the commands can come here, before there is anybody to agree with.
    seer::comm::die(error.message(), static_cast<int>(error.code()));
  } catch (const std::exception& error) {
    seer::comm::die(error.what(), static_cast<int>(seer::ExitCode::internal));
  }
}
