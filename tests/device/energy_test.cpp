// SPDX-License-Identifier: Apache-2.0
#include "seer/device/energy.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace seer::device {
namespace {

namespace fs = std::filesystem;

/// A folder like /sys/class/powercap.
class Powercap : public testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  void zone(const std::string& name, const std::string& what, std::int64_t energy_uj) {
    fs::create_directories(folder_ / name);
    std::ofstream(folder_ / name / "name") << what << "\n";
    std::ofstream(folder_ / name / "max_energy_range_uj") << 1000000 << "\n";
    set(name, energy_uj);
  }
  void set(const std::string& name, std::int64_t energy_uj) {
    std::ofstream(folder_ / name / "energy_uj") << energy_uj << "\n";
  }
  fs::path folder_ = fs::path(testing::TempDir()) / ("seer_powercap_" + std::to_string(getpid()));
};

TEST_F(Powercap, PackagesAndMemoryAreAddedAndWrapsCounted) {
  zone("intel-rapl:0", "package-0", 900000);
  zone("intel-rapl:0:0", "core", 5);
  zone("intel-rapl:0:1", "dram", 100);
  zone("intel-rapl:1", "package-1", 0);
  zone("intel-rapl:2", "psys", 7);
  zone("intel-rapl-mmio:0", "package-0", 900000);  // the same counter by another way
  HostEnergy energy(folder_.string());
  ASSERT_TRUE(energy.readable());
  EXPECT_EQ(energy.joules(), 0);
  set("intel-rapl:0", 950000);
  set("intel-rapl:0:0", 999999);
  set("intel-rapl:0:1", 30100);
  set("intel-rapl:2", 999999);
  set("intel-rapl-mmio:0", 950000);
  EXPECT_NEAR(energy.joules(), 0.05 + 0.03, 1e-9);
  set("intel-rapl:0", 50000);  // began again at 0
  EXPECT_NEAR(energy.joules(), 0.05 + 0.03 + 0.1, 1e-9);
  fs::remove(folder_ / "intel-rapl:1" / "energy_uj");  // a counter that goes away stands still
  set("intel-rapl:0", 60000);
  EXPECT_NEAR(energy.joules(), 0.05 + 0.03 + 0.1 + 0.01, 1e-9);
}

TEST_F(Powercap, OneCounterThatCannotBeReadLeavesTheSumUnknown) {
  EXPECT_FALSE(HostEnergy(folder_.string()).readable()) << "no counters";
  EXPECT_FALSE(HostEnergy((folder_ / "none").string()).readable());
  zone("intel-rapl:0", "package-0", 1);
  EXPECT_TRUE(HostEnergy(folder_.string()).readable());
  zone("intel-rapl:1", "package-1", 1);
  fs::remove(folder_ / "intel-rapl:1" / "energy_uj");  // as if not permitted: root may read everything
  EXPECT_FALSE(HostEnergy(folder_.string()).readable());
}

TEST(DeviceEnergy, AsksNvmlForTheDeviceOfThisBusId) {
  const DeviceEnergy energy("0000:1B:00.0", SEER_FAKE_NVML);
  ASSERT_TRUE(energy.readable());
  EXPECT_NEAR(energy.joules(), 1.5, 1e-9);
  EXPECT_NEAR(energy.joules(), 3.0, 1e-9);
  EXPECT_FALSE(DeviceEnergy("0000:1C:00.0", SEER_FAKE_NVML).readable());
  EXPECT_FALSE(DeviceEnergy("0000:1B:00.0", "libnothing.so.1").readable());
  EXPECT_FALSE(DeviceEnergy("", SEER_FAKE_NVML).readable());
  EXPECT_EQ(DeviceEnergy("").joules(), 0);
}

}  // namespace
}  // namespace seer::device
