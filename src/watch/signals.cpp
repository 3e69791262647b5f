// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/signals.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <optional>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/comm/launcher.hpp"

namespace seer::watch {
namespace {

using SteadyClock = std::chrono::steady_clock;
constexpr auto kLook = std::chrono::seconds(1);    // between two checks for files
constexpr std::int64_t kTwice_ns = 1'000'000'000;  // a second signal within this time is the first one again

const auto process_began = SteadyClock::now();  // when the program was loaded, before MPI_Init
std::atomic<int> received{0};
std::atomic<std::int64_t> received_ns{0};
std::atomic<bool> mpirun_ends{false};
std::optional<SteadyClock::time_point> deadline;
bool launched_by_mpirun = false;

/// Used only by the thread of the step loop.
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

void on_signal(int signal, siginfo_t* info, void*) {
  int nothing = 0;
  if (received.compare_exchange_strong(nothing, signal)) {
    received_ns = now_ns();
    // Open MPI's mpirun sends SIGTERM only when it is about to end.
    mpirun_ends = launched_by_mpirun && signal == SIGTERM && info->si_pid == getppid();
    return;
  }
  if (signal == SIGHUP || signal == SIGXCPU) return;  // the system sends these repeatedly
  if (const auto first = received_ns.load(); first != 0 && now_ns() - first >= kTwice_ns) {
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
  launched_by_mpirun = comm::under_mpirun();
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  // On a separate stack (catch_crashes() creates it). Handlers on the interrupted stack corrupted memory in one stop of
  // twenty: some kernel that oneDNN generates must keep values further below the stack pointer than the Linux kernel
  // spares.
  action.sa_flags = SA_RESTART | SA_ONSTACK | SA_SIGINFO;
  for (const int signal : {SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP, SIGXCPU}) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    // nohup ignores these from the start, and so does a shell without job control that runs this in the background.
    const bool shielded = (signal == SIGHUP || signal == SIGINT) && before.sa_handler == SIG_IGN;
    if (!shielded) sigaction(signal, &action, nullptr);
  }
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
      return mpirun_ends ? "SIGTERM from mpirun (which got Ctrl-C, SIGTERM or SIGHUP, or cannot write its output)"
                         : "SIGTERM";
    case SIGUSR1:
      return "SIGUSR1";
    case SIGUSR2:
      return "SIGUSR2";
    case SIGINT:
      return "SIGINT (Ctrl-C)";
    case SIGHUP:
      return "SIGHUP (the terminal is gone)";
    case SIGXCPU:
      return "SIGXCPU (the limit of processor time)";
    default:
      return files.stop_seen ? "STOP" : stop_requested() ? "walltime" : "";
  }
}

void stop_is_done() {
  if (files.stop_seen) ::unlink(files.stop.c_str());
}

}  // namespace seer::watch
