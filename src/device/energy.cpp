// SPDX-License-Identifier: Apache-2.0
#include "seer/device/energy.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "seer/device/binding.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::device {
namespace {

template <class Value>
std::optional<Value> value_in(const std::filesystem::path& file) {
  std::ifstream in(file);
  Value value{};
  if (in >> value) return value;
  return {};
}

}  // namespace

HostEnergy::HostEnergy(const std::string& folder) {
  std::error_code error;
  bool all = true;
  for (const auto& zone : std::filesystem::directory_iterator(folder, error)) {
    if (!zone.path().filename().string().starts_with("intel-rapl:")) continue;  // AMD's have this name too
    const auto name = value_in<std::string>(zone.path() / "name").value_or("");
    if (!name.starts_with("package") && name != "dram") continue;
    Counter counter{.file = (zone.path() / "energy_uj").string()};
    const auto now = value_in<std::int64_t>(counter.file);
    const auto range = value_in<std::int64_t>(zone.path() / "max_energy_range_uj");
    all = all && now && range;
    counter.last = now.value_or(0);
    counter.range = range.value_or(0);
    counters_.push_back(counter);
  }
  readable_ = all && !counters_.empty();
}

double HostEnergy::joules() {
  for (auto& c : counters_) {
    const auto now = value_in<std::int64_t>(c.file).value_or(c.last);
    joules_ += 1e-6 * static_cast<double>(now - c.last + (now < c.last ? c.range : 0));
    c.last = now;
  }
  return joules_;
}

/// The four functions of NVML that are needed, without its header; 0 means success.
struct DeviceEnergy::Nvml {
  using Device = struct Opaque*;

  Nvml(const std::string& pci_bus_id, const char* path) : library(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (library == nullptr) return;
    const auto init = function<int()>("nvmlInit_v2");
    const auto find = function<int(const char*, Device*)>("nvmlDeviceGetHandleByPciBusId_v2");
    shutdown = function<int()>("nvmlShutdown");
    energy = function<int(Device, unsigned long long*)>("nvmlDeviceGetTotalEnergyConsumption");
    if (init == nullptr || find == nullptr || shutdown == nullptr || energy == nullptr || init() != 0) return;
    started = true;
    if (find(pci_bus_id.c_str(), &device) != 0) device = nullptr;
  }
  ~Nvml() {
    if (started) shutdown();
    if (library != nullptr) dlclose(library);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  template <class Function>
  Function* function(const char* name) const {
    return reinterpret_cast<Function*>(dlsym(library, name));
  }
  std::optional<double> joules() const {
    unsigned long long millijoules = 0;
    if (device == nullptr || energy(device, &millijoules) != 0) return {};
    return 1e-3 * static_cast<double>(millijoules);
  }

  void* library;
  int (*shutdown)() = nullptr;
  int (*energy)(Device, unsigned long long*) = nullptr;
  Device device = nullptr;
  bool started = false;
};

DeviceEnergy::DeviceEnergy(const std::string& pci_bus_id, const char* library) {
  if (pci_bus_id.empty()) return;
  auto nvml = std::make_shared<Nvml>(pci_bus_id, library);
  const auto now = nvml->joules();
  if (!now) return;
  nvml_ = std::move(nvml);
  first_ = *now;
}

bool DeviceEnergy::readable() const {
  return nvml_ != nullptr;
}

double DeviceEnergy::joules() const {
  return nvml_ == nullptr ? 0 : nvml_->joules().value_or(first_) - first_;
}

std::string pci_bus_id() {
#if !defined(SEER_CUDA)
  if (has_stand_in()) return "";
#endif
  const auto id = device_id();  // and the UUID
  return id.substr(0, id.find(' '));
}

}  // namespace seer::device
