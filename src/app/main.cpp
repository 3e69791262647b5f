// SPDX-License-Identifier: Apache-2.0
// The program: binds the device, starts MPI and the log, parses the command line, runs the command. Also decides how
// errors end the program (docs/operations.md).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cmath>
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
#include "seer/base/streams.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/launcher.hpp"
#include "seer/config/config.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/session.hpp"
#include "seer/watch/signals.hpp"

namespace seer::app {
namespace {

/// Ends the program because of this error. Returns the exit code if all ranks come here; else does not return.
int end_with(const Error& error, const comm::Communicator& world) {
  const int code = static_cast<int>(error.code());
  // Other ranks may wait in a collective for this rank: only ending them all is safe.
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

/// `eval linear --logistic` is another name of `eval logistic`, and `eval linear --svm` of `eval svm`: puts that in the
/// place of the words. Returns how many words are left.
int rename_task(std::span<char*> arguments) {
  const auto count = static_cast<int>(arguments.size());
  if (count < 4 || std::string_view(arguments[1]) != "eval" || std::string_view(arguments[2]) != "linear") return count;
  for (const std::string_view task : {"--logistic", "--svm"}) {
    const auto flag = std::ranges::find(arguments, task, [](const char* word) { return std::string_view(word); });
    if (flag == arguments.end()) continue;
    arguments[2] = *flag + 2;
    std::move(flag + 1, arguments.end(), flag);
    return count - 1;
  }
  return count;
}

/// True for commands that compute. In a device build, all others, and planning, also run on nodes without a device.
bool computes(std::span<char* const> arguments) {
  const std::string_view command = arguments.size() > 1 ? arguments[1] : "";
  if (command == "plan") return given(arguments, "--calibrate");
  if (command == "bench" && given(arguments, "--plan")) return false;
  return command == "pretrain" || command == "finetune" || command == "eval" || command == "features" ||
         command == "bench";
}

/// Returns the reason if no device can be bound. It is thrown later, when all ranks can agree on it and print one line.
std::optional<Error> bind_device() {
  try {
    device::bind_device();
    return {};
  } catch (const Error& error) {
    return error;
  }
}

/// Collective. Throws Error(device), agreed, if a rank has no device. Ranks that compute on the host may share one.
void require_devices(const std::optional<Error>& refusal, const comm::Communicator& world) {
  if (refusal && refusal->code() == ExitCode::input) throw *refusal;
  // Without Kokkos' CUDA back end, kernels run on the host.
  if (!device::kernels_need_device()) return;
  comm::agree(world, "binding devices", [&] {
    if (refusal) throw *refusal;
  });
  if (device::bound_device() < 0) return;
  device::sharing() = device::shared_device(world.all_gather(log::host_name() + " " + device::device_id()));
}

/// Checks the number of threads of a rank that computes. No warning with --json.
void require_threads(std::span<char* const> arguments, const comm::Communicator& world) {
  if (!computes(arguments)) return;
  std::string warning;
  comm::agree(world, "threads", [&] { warning = device::require_threads(); });
  if (!warning.empty() && !given(arguments, "--json")) log::warn(warning);
}

/// The result of these commands is their output. Losing it is an error, unless the reader closed the pipe.
void require_output(std::string_view command) {
  if (command != "inspect" && command != "eval" && command != "plan" && command != "bench") return;
  const int error = streams::output_error();
  if (error == 0 || error == EPIPE) return;
  throw Error(ExitCode::file, "cannot write standard output: " + std::generic_category().message(error),
              "the result is not complete; write it to a disk with free space");
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

/// Error text for a word that is not one of the sub-commands of `at`.
std::string wrong_command(const CLI::App& at, const std::string& path) {
  const bool top = at.get_parent() == nullptr;
  const std::string kind = top ? "command" : "task", of = top ? "" : " of " + path;
  std::vector<std::string> names;
  for (const auto* sub : at.get_subcommands([](const CLI::App*) { return true; })) names.push_back(sub->get_name());
  const auto words = at.remaining();
  std::string text = "no " + kind + of + " is given";
  if (!words.empty()) {
    const bool option = words.front().starts_with("-");
    text = "unknown " + (option ? "option" : kind) + " \"" + words.front() + "\"" + of;
    const auto meant = config::nearest(words.front(), names);
    const bool close = config::edit_distance(words.front(), meant) <= 1 + meant.size() / 4;
    if (!option && close) text += ", did you mean " + meant + "?";
  }
  text += "; " + kind + "s:";
  for (const auto& name : names) text += " " + name;
  return text;
}

/// The text of an error, with the option's range as its help has it instead of numbers to six places.
std::string text_of(const CLI::App& at, const CLI::ParseError& error) {
  const std::string text = error.what();
  const auto range = text.find(" not in range "), name_end = text.find(": ");
  const auto* option = range == std::string::npos ? nullptr : at.get_option_no_throw(text.substr(0, name_end));
  if (option == nullptr) return text;
  const std::string type = option->get_type_name();  // "INT:INT in [1 - 9]"
  return text.substr(0, range) + ", wanted " + type.substr(type.find(':') + 1);
}

/// CLI11 takes nan for a number within every range.
void refuse_nan(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  for (const auto* option : at->get_options()) {
    if (!option->get_type_name().starts_with("FLOAT")) continue;
    for (const auto& word : option->results()) {
      double value = 0;
      if (CLI::detail::lexical_cast(word, value) && std::isnan(value))
        throw CLI::ValidationError(option->get_name(), "Value " + word + " is not a number");
    }
  }
}

/// Help and version go to stdout with exit code 0. Anything else is one line and exit code 2. The command line is the
/// same on every rank, so only rank 0 prints.
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
    log::error((wants_command ? wrong_command(*at, path) : text_of(*at, error)) + "; see " + path + " --help");
  return static_cast<int>(ExitCode::input);
}

int main(int argc, char** argv) {
  argc = rename_task({argv, static_cast<std::size_t>(argc)});
  // First, because MPI and Kokkos use the device that is current when they start.
  const std::span<char* const> arguments(argv, static_cast<std::size_t>(argc));
  const auto refusal = computes(arguments) ? bind_device() : std::nullopt;
  if (const auto hint = comm::launch_hint(std::getenv); !hint.empty()) std::cerr << hint + "\n";
  const comm::MpiSession mpi(argc, argv);
  const auto world = comm::Communicator::world();
  log::start(world.rank(), world.size());
  if (given(arguments, "--json")) log::to_standard_error();
  raise_open_file_limit();  // after MPI's start, whose child processes close every possible file descriptor
  watch::catch_crashes();

  CLI::App app("Pre-trains image models without labels, on one core or many nodes.", "seer");
  app.set_version_flag("--version", build_info());
  app.add_flag_callback(
      "--help-config", [] { throw CLI::CallForVersion(config::describe_keys(), 0); },
      "Every key of a configuration file with default, range and meaning");
  app.footer("seer COMMAND --help describes a command, with examples. mpirun -n R seer ... runs it on R ranks.");

  const auto run = add_commands(app);
  try {
    app.parse(argc, argv);
    refuse_nan(app);
  } catch (const CLI::ParseError& error) {
    return end_of_parsing(app, error, world);
  }
  if (const auto foreign = world.size() == 1 ? comm::foreign_launch(std::getenv) : std::nullopt) {
    if (foreign->first) log::error(foreign->error.message());
    return static_cast<int>(foreign->error.code());
  }
  return run_command(run, arguments, refusal, world);
}

}  // namespace
}  // namespace seer::app

int main(int argc, char** argv) {
  seer::streams::secure();
  try {
    // Signals end other commands as usual.
    const std::string_view command = argc > 1 ? argv[1] : "";
    if (command == "pretrain" || command == "finetune") seer::watch::catch_stop_signals();
    return seer::app::main(argc, argv);
  } catch (const seer::Error& error) {
    // Only starting MPI or declaring the commands can throw here, before there are ranks to agree with.
    seer::comm::die(error.message(), static_cast<int>(error.code()));
  } catch (const std::exception& error) {
    seer::comm::die(error.what(), static_cast<int>(seer::ExitCode::internal));
  }
}
