// SPDX-License-Identifier: Apache-2.0
// The program: the device first, then ranks, the log, the command line; then the command. How errors end it is here too
// (docs/operations.md).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "seer/app/command.hpp"
#include "seer/base/build_info.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/open_files.hpp"
#include "seer/base/streams.hpp"
#include "seer/comm/failure.hpp"
#include "seer/comm/launcher.hpp"
#include "seer/config/config.hpp"
#include "seer/config/nearest.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/session.hpp"
#include "seer/watch/crash.hpp"
#include "seer/watch/signals.hpp"

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
     "  seer pack photos.tar.gz -o shards/train --labels folder --split train\n"},
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

bool given(std::span<char* const> arguments, std::string_view option) {
  return std::ranges::any_of(arguments, [&](const char* a) { return std::string_view(a).starts_with(option); });
}

/// Commands that compute. The others, and what only plans, also go on nodes without a device (a device build).
bool computes(std::span<char* const> arguments) {
  const std::string_view command = arguments.size() > 1 ? arguments[1] : "";
  if (command == "plan") return given(arguments, "--calibrate");
  if (command == "bench" && given(arguments, "--plan")) return false;
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

/// Threads of a rank that will compute. Not told to who reads JSON.
void require_threads(std::span<char* const> arguments, const comm::Communicator& world) {
  if (!computes(arguments)) return;
  std::string warning;
  comm::agree(world, "threads", [&] { warning = device::require_threads(); });
  if (!warning.empty() && !given(arguments, "--json")) log::warn(warning);
}

/// Their result is what they print: one that is lost is a failure, unless the reader has had enough.
void require_output(std::string_view command) {
  if (command != "inspect" && command != "eval" && command != "plan" && command != "bench") return;
  const int error = streams::output_error();
  if (error == 0 || error == EPIPE) return;
  throw Error(ExitCode::file, "cannot write standard output: " + std::generic_category().message(error),
              "the result is not complete; send it where there is space");
}

int run_command(const Run& run, std::span<char* const> arguments, const std::optional<Error>& refusal,
                const comm::Communicator& world) {
  try {
    require_threads(arguments, world);
    require_devices(refusal, world);
    const device::Session device;
    const int code = run(world);
    comm::agree(world, "standard output", [&] {
      if (code == 0 && world.is_root()) require_output(arguments[1]);
    });
    return code;
  } catch (const Error& error) {
    return end_with(error, world);
  } catch (const std::bad_alloc&) {
    return end_with(comm::out_of_memory(), world);
  } catch (const std::exception& error) {
    return end_with(Error(ExitCode::internal, error.what(), "this is a defect of seer; please report it"), world);
  }
}

/// What is wrong with the word where one of the sub-commands of `at` is wanted.
std::string wrong_command(const CLI::App& at, const std::string& path) {
  const bool top = at.get_parent() == nullptr;
  const std::string kind = top ? "command" : "task", of = top ? "" : " of " + path;
  std::vector<std::string> names;
  for (const auto* sub : at.get_subcommands([](const CLI::App*) { return true; })) names.push_back(sub->get_name());
  const auto words = at.remaining();
  std::string text;
  if (words.empty()) {
    text = "no " + kind + of + " is given";
  } else if (words.front().starts_with("-")) {
    text = "unknown option \"" + words.front() + "\"" + of;
  } else {
    text = "unknown " + kind + " \"" + words.front() + "\"" + of;
    const auto meant = config::nearest(words.front(), names);
    if (config::edit_distance(words.front(), meant) <= 1 + meant.size() / 4) text += ", did you mean " + meant + "?";
  }
  text += "; " + kind + "s:";
  for (const auto& name : names) text += " " + name;
  return text;
}

/// Help and version go to stdout with exit code 0; anything else is one line and exit code 2. The command line is the
/// same on every rank, so rank 0 speaks for all.
int end_of_parsing(const CLI::App& app, const CLI::ParseError& error, const comm::Communicator& world) {
  if (error.get_exit_code() == 0) {
    if (!world.is_root()) return 0;
    app.exit(error, std::cout, std::cerr);
    if (std::cout.flush() || errno == EPIPE) return 0;
    log::error(std::string("cannot write standard output: ") + std::strerror(errno));
    return static_cast<int>(ExitCode::file);
  }
  std::string path = "seer";
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  const bool wants_command = at->get_require_subcommand_min() > 0;
  if (world.is_root())
    log::error((wants_command ? wrong_command(*at, path) : error.what()) + "; see " + path + " --help");
  return static_cast<int>(ExitCode::input);
}

int main(int argc, char** argv) {
  // MPI and Kokkos settle on the device that is current when they start.
  const std::span<char* const> arguments(argv, static_cast<std::size_t>(argc));
  const auto refusal = computes(arguments) ? bind_device() : std::nullopt;
  if (const auto hint = comm::launch_hint(std::getenv); !hint.empty()) std::cerr << hint + "\n";
  const comm::MpiSession mpi(argc, argv);
  const auto world = comm::Communicator::world();
  log::start(world.rank(), world.size());
  if (std::any_of(argv, argv + argc, [](std::string_view word) { return word == "--json"; })) log::to_standard_error();
  raise_open_file_limit();  // after MPI's start, whose children would close every file that there may be
  watch::catch_crashes();

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
    expand_homes(*sub);
    if (sub->get_footer().empty()) sub->footer(command.examples);
    commands.emplace_back(sub, std::move(run));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return end_of_parsing(app, error, world);
  }
  if (const auto foreign = world.size() == 1 ? comm::foreign_launch(std::getenv) : std::nullopt) {
    if (foreign->first) log::error(foreign->error.message());
    return static_cast<int>(foreign->error.code());
  }
  for (const auto& [sub, run] : commands) {
    if (sub->parsed()) return run_command(run, arguments, refusal, world);
  }
  return static_cast<int>(ExitCode::internal);  // require_subcommand leaves no such case
}

}  // namespace
}  // namespace seer::app

int main(int argc, char** argv) {
  seer::streams::secure();
  try {
    // Other commands end by a signal as any program does.
    if (argc > 1 && std::string_view(argv[1]) == "pretrain") seer::watch::catch_stop_signals();
    return seer::app::main(argc, argv);
  } catch (const seer::Error& error) {
    // Only starting MPI or declaring the commands can come here, before there is anybody to agree with.
    seer::comm::die(error.message(), static_cast<int>(error.code()));
  } catch (const std::exception& error) {
    seer::comm::die(error.what(), static_cast<int>(seer::ExitCode::internal));
  }
}
