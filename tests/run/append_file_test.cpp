// SPDX-License-Identifier: Apache-2.0
#include "seer/run/records.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "run/temporary_folder.hpp"
#include "seer/base/error.hpp"

namespace seer::run {
namespace {

TEST(AppendFile, ARecordThatDoesNotFitLeavesNoPartOfItself) {
  const TemporaryFolder folder;
  const auto path = folder.path() + "/file";
  AppendFile file(path, "make room");
  file.append("first\n");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto previous = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{10, before.rlim_max};  // four bytes of the next record fit
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::string message;
  try {
    file.append("second\n");
  } catch (const Error& e) {
    message = e.message();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, previous);
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_NE(message.find("make room"), std::string::npos) << message;
  EXPECT_EQ(std::filesystem::file_size(path), 6U);
  file.append("third\n");
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "first\nthird\n");
}

TEST(AppendFile, RecordsFollowThoseOfAnEarlierStart) {
  const TemporaryFolder folder;
  const auto path = folder.path() + "/file";
  AppendFile(path, "").append("first\n");
  AppendFile(path, "").append("second\n");
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str(), "first\nsecond\n");
}

}  // namespace
}  // namespace seer::run
