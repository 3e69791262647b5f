// SPDX-License-Identifier: Apache-2.0
#include "seer/base/thread.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

namespace seer {
namespace {

#if !defined(__SANITIZE_ADDRESS__)
/// Little memory is left, and stacks want more.
void leave_no_memory_for_stacks() {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit memory{};
  memory.rlim_cur = memory.rlim_max = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{8} << 20);
  setrlimit(RLIMIT_AS, &memory);
  pthread_attr_t large;
  pthread_attr_init(&large);
  pthread_attr_setstacksize(&large, std::size_t{64} << 20);
  pthread_setattr_default_np(&large);
}

TEST(ThreadDeathTest, ThatTheSystemRefusesIsNamed) {
  EXPECT_EXIT(
      {
        leave_no_memory_for_stacks();
        try {
          start_thread("reader thread 3 of 4", [] {}).join();
        } catch (const Error& error) {
          std::fputs(error.message().c_str(), stderr);
          _exit(static_cast<int>(error.code()));
        }
        _exit(0);
      },
      testing::ExitedWithCode(5), "cannot start reader thread 3 of 4: .*ulimit -u");
}
#endif

}  // namespace
}  // namespace seer
