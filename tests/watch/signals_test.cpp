// SPDX-License-Identifier: Apache-2.0
// Requests to stop. Each case runs in its own process, because a request cannot be taken back.
#include "seer/watch/signals.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>

namespace seer::watch {
namespace {

/// Forks a process that returns 0 if `holds()` is true, else 1, and returns its exit status.
int status_of(const std::function<bool()>& holds, const std::function<void(pid_t)>& meanwhile = {}) {
  int ready[2];
  if (pipe(ready) != 0) return -1;
  const pid_t child = fork();
  if (child == 0) {
    catch_stop_signals();
    [[maybe_unused]] const auto n = write(ready[1], "r", 1);
    _exit(holds() ? 0 : 1);
  }
  char byte = 0;
  [[maybe_unused]] const auto n = read(ready[0], &byte, 1);
  if (meanwhile) meanwhile(child);
  int status = 0;
  waitpid(child, &status, 0);
  close(ready[0]);
  close(ready[1]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Signals, AskForAStop) {
  for (const int signal : {SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP, SIGXCPU}) {
    EXPECT_EQ(status_of([&] {
                std::raise(signal);
                return stop_requested() && !stop_reason().empty();
              }),
              0)
        << signal;
  }
}

TEST(Signals, ThatComeAgainByThemselvesEndNothing) {
  for (const int signal : {SIGHUP, SIGXCPU}) {
    EXPECT_EQ(status_of([&] {
                std::raise(signal);
                usleep(1'100'000);
                std::raise(signal);
                return true;
              }),
              0)
        << signal;
  }
}

TEST(Signals, IgnoredFromTheStartStayIgnored) {
  for (const int signal : {SIGHUP, SIGINT}) {
    const auto before = std::signal(signal, SIG_IGN);
    EXPECT_EQ(status_of([&] {
                std::raise(signal);
                return !stop_requested();
              }),
              0)
        << signal;
    std::signal(signal, before);
  }
}

TEST(Signals, SigtermOfMpirunIsToldFromAnyOther) {
  const char* launched = std::getenv("OMPI_COMM_WORLD_RANK");
  const std::string kept = launched != nullptr ? launched : "";
  setenv("OMPI_COMM_WORLD_RANK", "0", 1);
  // The parent of the process stands for mpirun.
  EXPECT_EQ(status_of(
                [] {
                  while (!stop_requested()) usleep(1000);
                  return stop_reason().starts_with("SIGTERM from mpirun");
                },
                [](pid_t child) { kill(child, SIGTERM); }),
            0);
  EXPECT_EQ(status_of([] {
              std::raise(SIGTERM);
              return stop_reason() == "SIGTERM";
            }),
            0);
  if (launched != nullptr) setenv("OMPI_COMM_WORLD_RANK", kept.c_str(), 1);
  if (launched == nullptr) unsetenv("OMPI_COMM_WORLD_RANK");
}

}  // namespace
}  // namespace seer::watch
