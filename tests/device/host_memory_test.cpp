// SPDX-License-Identifier: Apache-2.0
#include "seer/device/memory.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace seer::device {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Folders that look like /proc and /sys/fs/cgroup: 64 GiB, of which 48 are available.
class HostMemoryTest : public ::testing::Test {
 protected:
  HostMemoryTest() : root_(fs::temp_directory_path() / ("seer-host-memory-" + std::to_string(::getpid()))) {
    put("proc/meminfo",
        "MemTotal:       67108864 kB\nMemFree:         1048576 kB\nMemAvailable:   50331648 kB\nSwapTotal: 0 kB\n");
  }
  ~HostMemoryTest() override { fs::remove_all(root_); }

  void put(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  /// MiB.
  std::pair<std::size_t, std::size_t> found() const {
    const auto memory = host_memory((root_ / "proc").string(), (root_ / "cgroup").string());
    return {memory.total / kMiB, memory.available / kMiB};
  }
  static std::string mib(std::size_t n) { return std::to_string(n * kMiB) + "\n"; }

  fs::path root_;
};

using Found = std::pair<std::size_t, std::size_t>;

TEST_F(HostMemoryTest, WithoutGroupsItIsTheMachines) {
  EXPECT_EQ(found(), Found(65536, 49152));
  put("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(found(), Found(65536, 49152));
  put("proc/self/cgroup", "nonsense\n\n3:\n");
  EXPECT_EQ(found(), Found(65536, 49152));
  fs::remove(root_ / "proc/meminfo");
  EXPECT_EQ(found(), Found(0, 0));
}

TEST_F(HostMemoryTest, Version2TheLeastOfAllLevelsCounts) {
  put("proc/self/cgroup", "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n");
  const std::string job = "cgroup/system.slice/slurmstepd.scope/job_7";
  put(job + "/step_0/user/task_0/memory.max", "max\n");
  put(job + "/step_0/user/task_0/memory.current", mib(900));
  EXPECT_EQ(found(), Found(65536, 49152)) << "no limit anywhere";
  put(job + "/memory.max", mib(8192));
  put(job + "/memory.current", mib(3000));
  EXPECT_EQ(found(), Found(8192, 5192));
  put(job + "/memory.stat", "anon 5\nactive_file " + mib(700) + "inactive_file " + mib(1000) + "slab 3\n");
  EXPECT_EQ(found(), Found(8192, 6192)) << "files that are not in use are free";
  put(job + "/step_0/memory.max", mib(4096));
  put(job + "/step_0/memory.current", mib(4000));
  EXPECT_EQ(found(), Found(4096, 96));
  put(job + "/step_0/memory.current", mib(5000));
  EXPECT_EQ(host_memory((root_ / "proc").string(), (root_ / "cgroup").string()).available, 1U) << "known to be none";
}

TEST_F(HostMemoryTest, Version1AndBothAtOnce) {
  put("proc/self/cgroup", "11:cpu,cpuacct:/x\n4:hugetlb,memory:/slurm/uid_1/job_7\n1:name=systemd:/x\n0::/x\n");
  const std::string job = "cgroup/memory/slurm/uid_1/job_7";
  put(job + "/memory.limit_in_bytes", "9223372036854771712\n");
  put(job + "/memory.usage_in_bytes", mib(100));
  EXPECT_EQ(found(), Found(65536, 49152)) << "unlimited";
  put(job + "/memory.limit_in_bytes", mib(2048));
  put(job + "/memory.stat", "inactive_file 1\ntotal_inactive_file " + mib(40));
  EXPECT_EQ(found(), Found(2048, 1988));
  put("cgroup/x/memory.max", mib(1024));
  EXPECT_EQ(found(), Found(1024, 1024));
}

TEST_F(HostMemoryTest, InAContainerTheRootIsItsGroup) {
  put("proc/self/cgroup", "0::/kubepods/pod3/0123\n");
  put("cgroup/memory.max", mib(512));
  put("cgroup/memory.current", mib(200));
  EXPECT_EQ(found(), Found(512, 312));
}

TEST(HostMemory, OfThisMachine) {
  const auto memory = host_memory();
  EXPECT_GT(memory.available, 0U);
  EXPECT_GE(memory.total, memory.available);
  EXPECT_EQ(exit_code_without(memory.total + 1, Space::host), ExitCode::input) << "would fail for ever";
  EXPECT_EQ(exit_code_without(memory.total, Space::host), ExitCode::device);
}

}  // namespace
}  // namespace seer::device
