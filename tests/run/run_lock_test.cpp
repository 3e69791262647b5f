// SPDX-License-Identifier: Apache-2.0
// The lock of a run folder: processes that start at the same time, owners that die, owners on other nodes, and owners
// that come back too late.
#include "seer/run/run_lock.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

#include "run/temporary_folder.hpp"
#include "seer/base/error.hpp"

namespace seer::run {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

/// A run that seems to be on another node, with times less than a tenth of the usual ones.
RunLock::Options elsewhere(const std::string& host, bool use_flock = false) {
  RunLock::Options o;
  o.self.host = host;
  o.self.machine = "machine of " + host;
  o.beat = 50ms;
  o.stale = 6s;
  o.settle = 300ms;
  o.use_flock = use_flock;
  return o;
}

std::string refusal(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input) << e.message();
    return e.message();
  }
  return "";
}

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Waits until the lock's thread has noticed, at its next beat, that another run has the lock or that its file is gone.
/// Returns the message.
std::string noticed(const RunLock& lock) {
  std::string text;
  for (const auto end = std::chrono::steady_clock::now() + 60s;
       text.empty() && std::chrono::steady_clock::now() < end;) {
    text = refusal([&] {
      if (lock.vanished()) throw Error(ExitCode::input, "vanished");
    });
    std::this_thread::sleep_for(5ms);
  }
  return text;
}

/// Runs `act` in a child process that ends without clean-up. Returns its result.
int in_child(const std::function<int()>& act) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(act());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(RunLock, RefusesNamingTheOwnerAndIsGivenBack) {
  const TemporaryFolder folder;
  {
    const RunLock lock(folder.path());
    const auto text = refusal([&] { const RunLock second(folder.path()); });
    EXPECT_NE(text.find("another run uses " + folder.path() + ": process " + std::to_string(::getpid())),
              std::string::npos)
        << text;
    EXPECT_NE(text.find("last sign of life "), std::string::npos) << text;
    EXPECT_FALSE(lock.vanished());
  }
  EXPECT_EQ(text_of(folder.path() + "/lock"), "");
  const RunLock again(folder.path());
}

TEST(RunLock, AProcessThatEndedWithoutGivingItBackIsTakenOver) {
  for (const bool use_flock : {true, false}) {
    const TemporaryFolder folder;
    const auto here = [use_flock] {
      RunLock::Options options;  // of the process that asks
      options.use_flock = use_flock;
      options.settle = 10ms;
      return options;
    };
    ASSERT_EQ(in_child([&] {
                new RunLock(folder.path(), here());
                return 0;
              }),
              0);
    EXPECT_NE(text_of(folder.path() + "/lock"), "");
    const auto began = std::chrono::steady_clock::now();
    const RunLock lock(folder.path(), here());
    EXPECT_LT(std::chrono::steady_clock::now() - began, 50s) << "its death is known, not waited for";
  }
}

TEST(RunLock, AHeartbeatElsewhereRefuses) {
  const TemporaryFolder folder;
  const RunLock theirs(folder.path(), elsewhere("node1"));
  for (int i = 0; i < 5; ++i) {
    const auto text = refusal([&] { const RunLock mine(folder.path(), elsewhere("node2")); });
    EXPECT_NE(text.find("process " + std::to_string(::getpid()) + " on node1"), std::string::npos) << text;
  }
  EXPECT_FALSE(theirs.vanished());
}

TEST(RunLock, SilenceElsewhereIsTakenOver) {
  const TemporaryFolder folder;
  const auto leave = [&] {
    ASSERT_EQ(in_child([&] {
                new RunLock(folder.path(), elsewhere("node1"));
                return 0;
              }),
              0);
  };
  leave();
  const auto began = std::chrono::steady_clock::now();
  auto soon = elsewhere("node2");
  soon.stale = 600ms;
  { const RunLock lock(folder.path(), soon); }  // silent while it is watched
  EXPECT_GE(std::chrono::steady_clock::now() - began, 600ms);
  leave();
  fs::last_write_time(folder.path() + "/lock", fs::file_time_type::clock::now() - 1h);
  auto late = elsewhere("node2");
  late.stale = 10min;
  const RunLock lock(folder.path(), late);  // already silent for an hour: not watched for ten minutes
}

TEST(RunLock, ALaterStartOfTheSameSlurmJobTakesOverAtOnce) {
  const TemporaryFolder folder;
  auto first = elsewhere("node1"), second = elsewhere("node2");
  first.self.job = second.self.job = "99";
  second.self.restart = 1;
  second.stale = 1h;
  const RunLock theirs(folder.path(), first);
  const RunLock mine(folder.path(), second);
  const auto text = noticed(theirs);
  EXPECT_NE(text.find("on node2, job 99, started"), std::string::npos) << text;
}

TEST(RunLock, OneThatWasTakenOverIsTold) {
  const TemporaryFolder folder;
  auto theirs = std::make_unique<RunLock>(folder.path(), elsewhere("node1"));
  std::string other = text_of(folder.path() + "/lock");
  other.replace(other.find("node1"), 5, "node7");
  std::ofstream(folder.path() + "/lock") << other;
  const auto text = noticed(*theirs);
  EXPECT_NE(text.find("is no longer this run's"), std::string::npos) << text;
  EXPECT_NE(text.find("on node7"), std::string::npos) << text;
  theirs.reset();
  EXPECT_EQ(text_of(folder.path() + "/lock"), other) << "what is another's is not given back";
}

TEST(RunLock, AFolderThatVanishedIsTakenAgain) {
  const TemporaryFolder folder;
  const auto run = folder.path() + "/run";
  fs::create_directory(run);
  auto options = RunLock::Options{};
  options.beat = 20ms;
  RunLock lock(run, options);
  fs::remove_all(run);
  EXPECT_EQ(noticed(lock).substr(0, 8), "vanished");
  EXPECT_THROW(lock.retake(), Error) << "no folder yet";
  fs::create_directory(run);
  lock.retake();
  EXPECT_FALSE(lock.vanished());
  EXPECT_NE(refusal([&] { const RunLock second(run); }), "");
}

/// `processes` processes take the lock at the same moment. A process that gets it holds it until all have tried, and
/// then checks that it still has it. Returns how many still have it.
int winners(const std::string& run, int processes, const std::function<RunLock::Options(int)>& options) {
  auto* const tried = static_cast<std::atomic<int>*>(
      ::mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  new (tried) std::atomic<int>(0);
  const auto start = std::chrono::steady_clock::now() + 20ms;
  std::vector<pid_t> children;
  for (int i = 0; i < processes; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto mine = options(i);
      std::this_thread::sleep_until(start);
      try {
        const RunLock lock(run, mine);
        for (++*tried; *tried < processes;) std::this_thread::sleep_for(1ms);
        if (!mine.use_flock) std::this_thread::sleep_for(20 * mine.beat);
        lock.vanished();
        ::_exit(1);
      } catch (const Error& e) {
        ++*tried;
        ::_exit(e.code() == ExitCode::input ? 0 : 9);
      }
    }
    children.push_back(child);
  }
  int sum = 0;
  for (const auto child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    sum += WEXITSTATUS(status);
  }
  ::munmap(tried, sizeof(std::atomic<int>));
  return sum;
}

TEST(RunLock, OfSeveralThatStartAtOnceExactlyOneGoesOn) {
  const TemporaryFolder folder;
  const auto flock = [](int) {
    RunLock::Options o;
    o.settle = 0ms;
    return o;
  };
  for (int trial = 0; trial < 100; ++trial) ASSERT_EQ(winners(folder.path(), 4, flock), 1) << "trial " << trial;
}

TEST(RunLock, ExactlyOneGoesOnWhereOnlyHeartbeatsTell) {
  for (int trial = 0; trial < 6; ++trial) {
    const TemporaryFolder folder;
    const auto nodes = [](int i) { return elsewhere("node" + std::to_string(i)); };
    ASSERT_EQ(winners(folder.path(), 3, nodes), 1) << "trial " << trial;
  }
}

}  // namespace
}  // namespace seer::run
