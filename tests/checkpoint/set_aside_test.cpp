// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace {
std::string failing_target;  ///< renames to a path with this ending fail; "": none
}

// The linker prefers a function of the executable to that of the C library.
extern "C" int rename(const char* from, const char* to) noexcept {
  if (!failing_target.empty() && std::string(to).ends_with(failing_target)) {
    errno = EXDEV;
    return -1;
  }
  return static_cast<int>(syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to));
}

namespace seer::checkpoint {
namespace {

namespace fs = std::filesystem;

/// A run folder with checkpoints of 10 and 20 updates, of which only the names are right.
class SetAside : public testing::Test {
 protected:
  SetAside() {
    std::string pattern = (fs::temp_directory_path() / "seer-aside-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    run_ = root_ / "run";
    fs::create_directories(run_);
  }
  ~SetAside() override { fs::remove_all(root_); }

  void fill() {
    for (const char* name : {"update-00000010", "update-00000020", ".old-update-00000030"}) {
      fs::create_directories(run_ / "checkpoints" / name);
      std::ofstream(run_ / "checkpoints" / name / "state.h5") << name;
    }
    std::ofstream(run_ / "metrics.jsonl") << "{}\n";
  }
  bool has(const std::string& path) const { return fs::exists(run_ / path); }

  fs::path root_, run_;
};

TEST_F(SetAside, NewerOnesAndWhatWasBeingReplacedAreMoved) {
  fill();
  EXPECT_EQ(set_aside_newer(run_, 10), run_ / "checkpoints.old-1");
  EXPECT_TRUE(has("checkpoints/update-00000010/state.h5"));
  EXPECT_TRUE(has("checkpoints.old-1/update-00000020/state.h5"));
  EXPECT_TRUE(has("checkpoints.old-1/update-00000030/state.h5")) << "it would have come back later";
  EXPECT_TRUE(has("metrics.jsonl"));
  EXPECT_EQ(set_aside_newer(run_, 10), "");
  EXPECT_EQ(set_aside_newer(run_, -1, "metrics.jsonl"), run_ / "checkpoints.old-2");
  EXPECT_TRUE(has("checkpoints.old-2/metrics.jsonl"));
  EXPECT_FALSE(has("metrics.jsonl"));
  EXPECT_TRUE(fs::is_empty(run_ / "checkpoints"));
}

TEST_F(SetAside, ALinkStaysAndWhatItLeadsToStaysOnItsFileSystem) {
  fs::create_directories(root_ / "far");
  fs::create_directory_symlink(root_ / "far", run_ / "checkpoints");
  fill();
  EXPECT_EQ(set_aside_newer(run_, -1, "metrics.jsonl"), run_ / "checkpoints/checkpoints.old-1");
  EXPECT_TRUE(fs::is_symlink(run_ / "checkpoints"));
  EXPECT_TRUE(fs::exists(root_ / "far/checkpoints.old-1/update-00000010/state.h5"));
  EXPECT_TRUE(has("checkpoints.old-1/update-00000020/state.h5")) << "seen from the run folder";
  EXPECT_TRUE(has("checkpoints.old-1/metrics.jsonl"));
  EXPECT_EQ(find_latest(run_), std::nullopt);
}

TEST_F(SetAside, AMoveThatFailsLeavesTheRunFolderAsItWas) {
  fill();
  set_aside_newer(run_, 20);  // what was being replaced
  failing_target = "update-00000020";
  EXPECT_THROW(set_aside_newer(run_, -1, "metrics.jsonl"), Error);
  failing_target = "";
  for (const char* name :
       {"checkpoints/update-00000010/state.h5", "checkpoints/update-00000020/state.h5", "metrics.jsonl"}) {
    EXPECT_TRUE(has(name)) << name;
  }
  EXPECT_FALSE(has("checkpoints.old-2"));
}

TEST_F(SetAside, NamesThatAreTakenAreCountedOver) {
  fill();
  fs::create_symlink("nowhere", run_ / "checkpoints.old-1");
  EXPECT_EQ(set_aside_newer(run_, 10), run_ / "checkpoints.old-2");
}

}  // namespace
}  // namespace seer::checkpoint
