// SPDX-License-Identifier: Apache-2.0
#include "seer/device/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

namespace seer::device {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

/// The number after `key` in a file of lines "key number"; with an empty key the file's first word. Returns `otherwise`
/// if there is no such file or line, or no number ("max": no limit).
std::size_t figure(const std::string& path, const std::string& key, std::size_t otherwise) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    std::string found;
    std::size_t value = 0;
    if (!key.empty() && (!(words >> found) || found != key)) continue;
    if (words >> value) return value;
    return otherwise;
  }
  return otherwise;
}

/// File and key names of one version of control groups.
struct Names {
  const char *limit, *usage, *inactive_file;
};
constexpr Names kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names kVersion2{"memory.max", "memory.current", "inactive_file"};

/// Applies the limits of all groups from `path` up to `root`. In a container `path` may be the machine's path, but only
/// its end is mounted, as the root; groups that are not visible are skipped.
void apply(const std::string& root, std::string path, const Names& names, HostMemory& memory) {
  for (;;) {
    const auto folder = root + path + "/";
    const auto limit = figure(folder + names.limit, "", kUnlimited);
    if (limit < memory.total) memory.total = limit;
    if (limit != kUnlimited) {
      const auto held = figure(folder + names.usage, "", 0);
      const auto files = figure(folder + "memory.stat", names.inactive_file, 0);
      const auto used = held - std::min(held, files);
      // Never 0, which would mean unknown.
      memory.available = std::min(memory.available, std::max<std::size_t>(limit - std::min(limit, used), 1));
    }
    if (path.empty()) return;
    path.resize(path.rfind('/'));
  }
}

/// Returns "/a/b" for a line "4:memory:/a/b", without a slash at its end.
std::string path_of(const std::string& line) {
  auto path = line.substr(line.find(':', line.find(':') + 1) + 1);
  while (path.ends_with('/')) path.pop_back();
  return path.empty() || path.front() == '/' ? path : "/" + path;
}

}  // namespace

HostMemory host_memory(const std::string& proc, const std::string& groups) {
  HostMemory memory{figure(proc + "/meminfo", "MemTotal:", 0) * 1024,
                    figure(proc + "/meminfo", "MemAvailable:", 0) * 1024};
  if (memory.available == 0) return memory;
  std::ifstream in(proc + "/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const auto begin = line.find(':');
    const auto end = line.find(':', begin + 1);
    if (begin == std::string::npos || end == std::string::npos) continue;
    const auto controllers = "," + line.substr(begin + 1, end - begin - 1) + ",";
    if (controllers == ",,") apply(groups, path_of(line), kVersion2, memory);
    if (controllers.find(",memory,") != std::string::npos) apply(groups + "/memory", path_of(line), kVersion1, memory);
  }
  return memory;
}

}  // namespace seer::device
