// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include "seer/base/error.hpp"
#include "seer/device/session.hpp"

namespace seer::device {
namespace {

TEST(Threads, ACountIsANumberWithinTheNode) {
  EXPECT_EQ(thread_count("OMP_NUM_THREADS", nullptr, 64), 0);
  EXPECT_EQ(thread_count("OMP_NUM_THREADS", "", 64), 0);
  EXPECT_EQ(thread_count("OMP_NUM_THREADS", " 4 ", 64), 4);
  EXPECT_EQ(thread_count("OMP_NUM_THREADS", "64", 64), 64);
  EXPECT_EQ(thread_count("OMP_NUM_THREADS", "4, 2", 64), 4);
  for (const char* wrong : {"0", "-1", "abc", "4x", "1.5", "65", "99999", "99999999999999999999"}) {
    try {
      thread_count("OMP_NUM_THREADS", wrong, 64);
      ADD_FAILURE() << wrong << " is taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::input);
      const auto wanted = "OMP_NUM_THREADS is \"" + std::string(wrong) + "\"; allowed: 1 to 64";
      EXPECT_NE(error.message().find(wanted), std::string::npos) << error.message();
    }
  }
  EXPECT_GE(most_threads(), 64);
}

}  // namespace
}  // namespace seer::device
