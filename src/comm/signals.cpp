// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/signals.hpp"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>

#include "seer/base/error.hpp"

namespace seer::comm {
namespace {

using SteadyClock = std::chrono::steady_clock;
std::atomic<int> received{0};
std::optional<SteadyClock::time_point> deadline;

void on_signal(int signal) {
  if (received.exchange(signal) != 0) _exit(static_cast<int>(ExitCode::requeue));
}

}  // namespace

void watch_for_stop(const std::string& walltime) {
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGTERM, SIGUSR1, SIGINT}) sigaction(signal, &action, nullptr);
  int hours = 0, minutes = 0, seconds = 0;
  if (std::sscanf(walltime.c_str(), "%d:%d:%d", &hours, &minutes, &seconds) == 3) {
    deadline =
        SteadyClock::now() + std::chrono::hours(hours) + std::chrono::minutes(minutes) + std::chrono::seconds(seconds);
  }
}

bool stop_requested() {
  return received != 0 || (deadline && SteadyClock::now() >= *deadline);
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
      return stop_requested() ? "walltime" : "";
  }
}

}  // namespace seer::comm
