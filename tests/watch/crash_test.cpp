// SPDX-License-Identifier: Apache-2.0
// What a process prints and writes when it dies. Each case dies in its own process, where MPI has not started:
// "threadsafe" death tests run the executable again.
#include "seer/watch/signals.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"

namespace seer::watch {
namespace {

using namespace comm;

/// Exactly one error message. The launcher's library may add other lines.
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
    setenv("SEER_CRASH_TEST", std::to_string(getpid()).c_str(), 0);  // the dying process keeps its parent's value
    folder = testing::TempDir() + "seer_crash_test_" + std::getenv("SEER_CRASH_TEST");
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

#if defined(__x86_64__)
TEST_F(CrashDeathTest, TheStackGoesOnAboveGeneratedCode) {
  // No unwinder understands this code: it reserves 72 bytes of the stack, or moves the stack to other memory, as
  // oneDNN's products do.
  const std::vector<std::vector<unsigned char>> codes = {
      {0x48, 0x83, 0xec, 0x48,   // sub rsp, 72
       0x31, 0xed,               // xor ebp, ebp
       0x0f, 0x0b},              // ud2
      {0x48, 0x89, 0x67, 0x40,   // mov [rdi + 64], rsp
       0x48, 0x89, 0xfc,         // mov rsp, rdi
       0x31, 0xed, 0x0f, 0x0b},  // xor ebp, ebp; ud2
  };
  void* const memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  for (const auto& code : codes) {
    std::memcpy(memory, code.data(), code.size());
    EXPECT_EXIT(
        {
          prepare();
          std::vector<char> elsewhere(64 << 10);
          reinterpret_cast<void (*)(char*)>(memory)(elsewhere.data() + (32 << 10));
        },
        testing::ExitedWithCode(6), "error: rank 0/1 on .*SIGILL");
    const auto text = trace();
    const auto above = text.find("above generated code");
    ASSERT_NE(above, std::string::npos) << text;
    EXPECT_NE(text.find("test_watch +0x", above), std::string::npos) << text;
  }
  munmap(memory, 4096);
}
#endif

TEST_F(CrashDeathTest, AnExceptionThatNobodyCatchesInAThreadEndsWithItsCode) {
  EXPECT_EXIT(
      {
        prepare();
        std::thread([] { throw Error(ExitCode::file, "found 3, wanted 4", "pack it again"); }).join();
      },
      testing::ExitedWithCode(3), "error: rank 0/1 on .*found 3, wanted 4; pack it again .*in update 17");
  expect_trace("found 3, wanted 4; pack it again [tests/watch/crash_test.cpp:");
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
}  // namespace seer::watch
