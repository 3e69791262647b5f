// SPDX-License-Identifier: Apache-2.0
// What a dying process says and leaves. Each case dies in a process of its own, made from this one before MPI was
// started there: "threadsafe" death tests run the executable again.
#include "seer/comm/crash.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>
#include <sstream>
#include <thread>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"

namespace seer::comm {
namespace {

/// The launcher's library may add lines of its own.
class OneError : public testing::MatcherInterface<const std::string&> {
 public:
  bool MatchAndExplain(const std::string& text, testing::MatchResultListener*) const override {
    const std::string start = "error: rank 0/1 on ";
    const auto first = text.find(start);
    return first != std::string::npos && text.find(start, first + 1) == std::string::npos;
  }
  void DescribeTo(std::ostream* out) const override { *out << "one message"; }
};

class CrashDeathTest : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    folder = testing::TempDir() + "seer_crash_test";
    std::filesystem::create_directories(folder);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  void prepare() const {
    catch_crashes();
    leave_traces_in(folder);
    tell_update(17);
  }
  std::string trace() const {
    std::ostringstream text;
    text << std::ifstream(folder + "/error.0.txt").rdbuf();
    return text.str();
  }
  void expect_trace(const std::string& what) const {
    const auto text = trace();
    EXPECT_NE(text.find("rank 0/1 on "), std::string::npos) << text;
    EXPECT_NE(text.find(what), std::string::npos) << text;
    EXPECT_NE(text.find("build id"), std::string::npos) << text;
    EXPECT_NE(text.find("  #1 "), std::string::npos) << text;
  }
  std::string folder;
};

TEST_F(CrashDeathTest, SignalsOfADefectLeaveATraceAndExitCode6) {
  for (const auto& [signal, name] :
       {std::pair(SIGSEGV, "SIGSEGV"), std::pair(SIGFPE, "SIGFPE"), std::pair(SIGBUS, "SIGBUS"),
        std::pair(SIGILL, "SIGILL"), std::pair(SIGABRT, "SIGABRT")}) {
    EXPECT_EXIT(
        {
          prepare();
          std::raise(signal);
        },
        testing::ExitedWithCode(6), std::string("error: rank 0/1 on .*") + name + ".*in update 17");
    expect_trace(name);
  }
}

TEST_F(CrashDeathTest, AnExceptionThatNobodyCatchesInAThreadEndsWithItsCode) {
  EXPECT_EXIT(
      {
        prepare();
        std::thread([] { throw Error(ExitCode::file, "found 3, wanted 4", "pack it again"); }).join();
      },
      testing::ExitedWithCode(3), "error: rank 0/1 on .*found 3, wanted 4; pack it again .*in update 17");
  expect_trace("found 3, wanted 4; pack it again [tests/comm/crash_test.cpp:");
}

TEST_F(CrashDeathTest, MemoryThatRanOutIsExitCode5) {
  EXPECT_EXIT(
      {
        prepare();
        std::thread([] { throw std::bad_alloc(); }).join();
      },
      testing::ExitedWithCode(5), "error: .*out of memory");
  expect_trace("out of memory");
}

TEST_F(CrashDeathTest, OfTwoThreadsThatDieOneSpeaks) {
  EXPECT_EXIT(
      {
        prepare();
        std::thread first([] { die("only once", 4); });
        std::thread second([] { die("only once", 4); });
        first.join();
        second.join();
      },
      testing::ExitedWithCode(4), testing::MakeMatcher(new OneError));
}

}  // namespace
}  // namespace seer::comm
