// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/signals.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <optional>
#include <utility>

#include "seer/base/error.hpp"

namespace seer::comm {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr auto kLook = std::chrono::seconds(1);    // between two looks for files
constexpr std::int64_t kTwice_ns = 1'000'000'000;  // within this, a second signal is the first one again

const auto process_began = SteadyClock::now();  // when the program was loaded, before MPI_Init
std::atomic<int> received{0};
std::atomic<std::int64_t> received_ns{0};
std::optional<SteadyClock::time_point> deadline;

/// Used by the thread of the step loop alone.
struct Files {
  std::string stop, checkpoint;  ///< paths; empty: not looked for
  SteadyClock::time_point looked{};
  bool stop_seen = false, checkpoint_seen = false;
};
Files files;

/// Async-signal-safe.
std::int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000 + now.tv_nsec;
}

void on_signal(int signal) {
  int nothing = 0;
  if (received.compare_exchange_strong(nothing, signal)) {
    received_ns = now_ns();
  } else if (const auto first = received_ns.load(); first != 0 && now_ns() - first >= kTwice_ns) {
    _exit(static_cast<int>(ExitCode::requeue));
  }
}

void look_for_files() {
  if (files.stop.empty() || SteadyClock::now() - files.looked < kLook) return;
  files.looked = SteadyClock::now();
  files.stop_seen = files.stop_seen || ::access(files.stop.c_str(), F_OK) == 0;
  if (::unlink(files.checkpoint.c_str()) == 0) files.checkpoint_seen = true;
}

}  // namespace

void catch_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  // On a stack of its own (catch_crashes() makes it). Handlers on the interrupted stack corrupted memory in one stop of
  // twenty: some kernel that oneDNN generates must keep values further below the stack pointer than the kernel spares.
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) sigaction(signal, &action, nullptr);
}

void watch_for_stop(std::int64_t walltime_s) {
  catch_stop_signals();
  if (walltime_s > 0) deadline = process_began + std::chrono::seconds(walltime_s);
}

void watch_for_files(const std::string& run_dir) {
  files = {.stop = run_dir + "/STOP", .checkpoint = run_dir + "/CHECKPOINT"};
}

bool stop_requested() {
  look_for_files();
  return received != 0 || files.stop_seen || (deadline && SteadyClock::now() >= *deadline);
}

bool take_checkpoint_request() {
  look_for_files();
  return std::exchange(files.checkpoint_seen, false);
}

std::string stop_reason() {
  switch (received) {
    case SIGTERM:
      return "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGINT:
      return "SIGINT";
    default:
      return files.stop_seen ? "STOP" : stop_requested() ? "walltime" : "";
  }
}

void stop_is_done() {
  if (files.stop_seen) ::unlink(files.stop.c_str());
}

}  // namespace seer::comm
