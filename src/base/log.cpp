// SPDX-License-Identifier: Apache-2.0
#include "seer/base/log.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/streams.hpp"

namespace seer::log {
namespace {

struct State {
  int rank = 0, ranks = 1;
  std::shared_ptr<spdlog::logger> console, file;
  std::vector<std::pair<std::string, int>> warned;
  std::mutex mutex;  // reader threads may warn
  bool live = false, told_lost_output = false, to_stderr = false;
  std::optional<Clock> since_progress;
} state;

/// True if the output goes to a terminal. Open MPI gives ranks a pseudo-terminal whatever mpirun's own output is, so
/// under a launcher this checks the launcher's output.
bool on_terminal() {
  if (isatty(STDOUT_FILENO) == 0) return false;
  if (std::getenv("OMPI_COMM_WORLD_RANK") == nullptr) return true;
  char target[256] = "";
  const auto length = readlink(fmt::format("/proc/{}/fd/1", getppid()).c_str(), target, sizeof target - 1);
  const std::string_view name(target, length > 0 ? static_cast<std::size_t>(length) : 0);
  return name.starts_with("/dev/pts/") || name.starts_with("/dev/tty");
}

void write(spdlog::level::level_enum level, const std::string& text) {
  if (state.rank != 0) return;
  if (!state.console) {
    spdlog::sink_ptr sink = std::make_shared<spdlog::sinks::stdout_sink_mt>();
    if (state.to_stderr) sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
    state.console = std::make_shared<spdlog::logger>("console", sink);
    state.console->set_pattern("%v");
    state.console->flush_on(spdlog::level::info);
  }
  finish_progress();
  state.console->log(level, level == spdlog::level::warn ? "warning: " + text : text);
  if (!state.file) return;
  state.file->log(level, text);
  if (const int error = streams::output_error(); error != 0 && !std::exchange(state.told_lost_output, true)) {
    state.file->log(spdlog::level::warn, fmt::format("standard output cannot be written ({}); the lines are here",
                                                     std::generic_category().message(error)));
  }
}

}  // namespace

void start(int rank, int ranks) {
  state.rank = rank;
  state.ranks = ranks;
}

void to_standard_error() {
  state.to_stderr = true;
}

void to_file(const std::string& path) {
  if (state.rank != 0) return;
  state.file.reset();  // close the previous file first: it may have the same path
  try {
    state.file = std::make_shared<spdlog::logger>("file", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path));
  } catch (const spdlog::spdlog_ex& e) {
    throw Error(ExitCode::file, e.what(), "log.run_dir must be a writable folder with space left");
  }
  // A full disk loses lines of the log. Warn about it once.
  state.file->set_error_handler(
      [path](const std::string&) { warn(path + " cannot be written: some lines are missing"); });
  state.file->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  state.file->flush_on(spdlog::level::info);
}

void info(const std::string& text) {
  write(spdlog::level::info, text);
}

void warn(const std::string& text) {
  {
    std::lock_guard lock(state.mutex);
    const auto known = std::ranges::find(state.warned, text, &std::pair<std::string, int>::first);
    if (known != state.warned.end()) {
      ++known->second;
      return;
    }
    state.warned.emplace_back(text, 1);
  }
  write(spdlog::level::warn, text);
}

void error(const std::string& text) {
  const std::string line = fmt::format("error: rank {}/{} on {}: {}\n", state.rank, state.ranks, host_name(), text);
  // A single write: pieces of several ranks must not interleave.
  [[maybe_unused]] auto n = ::write(STDERR_FILENO, line.data(), line.size());
  if (state.file) state.file->log(spdlog::level::err, text);
}

std::vector<std::string> warnings() {
  std::lock_guard lock(state.mutex);
  std::vector<std::string> out;
  for (auto& [text, count] : state.warned) out.push_back(count == 1 ? text : fmt::format("{} ({} times)", text, count));
  return out;
}

void progress(const std::string& text, double plain_interval_s) {
  if (state.rank != 0) return;
  static const bool terminal = !state.to_stderr && on_terminal();
  constexpr double kLiveInterval_s = 0.2;
  if (state.since_progress && state.since_progress->seconds() < (terminal ? kLiveInterval_s : plain_interval_s)) return;
  state.since_progress.emplace();
  if (!terminal) return info(text);
  fmt::print("\r\x1b[K{}", text);
  std::fflush(stdout);
  state.live = true;
}

void finish_progress() {
  if (!state.live) return;
  fmt::print("\n");
  std::fflush(stdout);
  state.live = false;
}

int rank() {
  return state.rank;
}
int ranks() {
  return state.ranks;
}

std::string host_name() {
  char name[256] = "unknown";
  gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace seer::log
