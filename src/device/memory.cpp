// SPDX-License-Identifier: Apache-2.0
#include "seer/device/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

#include "device_memory.hpp"
#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/ledger.hpp"

namespace seer::device {
namespace {

constexpr std::size_t kAlign = 64, kHugePage = std::size_t{2} << 20;

std::size_t rounded(std::size_t bytes, std::size_t to) {
  return (bytes + to - 1) / to * to;
}

/// Bytes that a pool lends for a tensor.
std::size_t block_bytes(const Tensor& tensor) {
  return rounded(std::max<std::size_t>(static_cast<std::size_t>(tensor.bytes()), 1), kAlign);
}

SystemMemory memory_of(Space space) {
  return space == Space::device ? device_memory() : host_memory();
}

void* system_allocate(std::size_t bytes, Space space) {
  // Large blocks on huge-page boundaries: fewer TLB misses in every pass over an activation.
  const std::size_t align = bytes >= kHugePage ? kHugePage : kAlign;
  const bool device = space == Space::device;
  void* data = device ? device_allocate(bytes) : std::aligned_alloc(align, rounded(bytes, align));
  if (data == nullptr && device) {
    const auto memory = device_memory();
    throw Error(exit_code_without(bytes, space),
                fmt::format("out of device memory: cannot allocate a block of {} bytes; {} of {} bytes are free", bytes,
                            memory.available, memory.total),
                kLessDeviceMemory);
  }
  if (data == nullptr) {
    throw Error(exit_code_without(bytes, space),
                fmt::format("out of host memory: cannot allocate a block of {} bytes", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
  // Not for the last, incomplete huge page, which would take its full size: hundreds of packed weights end in one.
  if (!device && align == kHugePage) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return data;
}

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

/// The number after `key` in a file of lines "key number"; with an empty key the file's first word. Returns `otherwise`
/// if there is no such file or line, or no number ("max": no limit).
std::size_t figure(const std::string& path, const std::string& key, std::size_t otherwise) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string found;
    std::size_t value = 0;
    if (!key.empty() && (!(words >> found) || found != key)) continue;
    return words >> value ? value : otherwise;
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
void apply(const std::string& root, std::string path, const Names& names, SystemMemory& memory) {
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

Buffer::Buffer(std::size_t bytes, Space space) : data_(nullptr, {space}), bytes_(bytes) {
  if (bytes == 0) return;
  data_.reset(space == Space::planned ? planned_address() : system_allocate(bytes, space));
  if (space == Space::device) device_zero(data(), bytes);
  if (space == Space::host) std::memset(data(), 0, bytes);
}

void FreeMemory::operator()(void* data) const noexcept {
  if (space == Space::host) std::free(data);
  if (space == Space::device) device_free(data);
}

void Loan::release() {
  if (pool_ != nullptr) pool_->give_back(tensor_);
  pool_ = nullptr;
  tensor_ = {};
}

void Pool::grow(std::size_t bytes) {
  const bool planned = space_ == Space::planned;
  void* const base = planned ? planned_address() : system_allocate(bytes, space_);
  // Planned: more than anyone will ask for.
  Chunk chunk{{static_cast<char*>(base), {space_}}, planned ? std::size_t{1} << 56 : bytes, {}};
  if (!planned) held_bytes_ += bytes;
  ++system_allocations_;
  chunk.free.reserve(256);  // so that lending does not allocate
  chunk.free.push_back({0, chunk.bytes});
  chunks_.push_back(std::move(chunk));
}

void Pool::reserve(std::size_t bytes) {
  if (bytes > 0) grow(rounded(bytes, kAlign));
}

Loan Pool::tensor(Shape shape, DType dtype) {
  Tensor tensor{nullptr, shape, dtype, space_};
  const std::size_t wanted = block_bytes(tensor);
  Chunk* chunk = nullptr;
  std::size_t best = 0, best_size = 0;
  for (auto& c : chunks_) {
    for (std::size_t i = 0; i < c.free.size(); ++i) {
      const auto& stretch = c.free[i];
      if (stretch.bytes < wanted) continue;
      // The stretch at an arena's end counts as endless, as it is in a plan. Otherwise a real arena, which ends where
      // the plan said, would fill its end before a larger hole, and run out.
      const bool last = stretch.begin + stretch.bytes == c.bytes;
      const std::size_t size = last ? SIZE_MAX : stretch.bytes;
      if (chunk != nullptr && size >= best_size) continue;
      chunk = &c;
      best = i;
      best_size = size;
    }
  }
  if (chunk == nullptr) {
    grow(wanted);
    chunk = &chunks_.back();
    best = 0;
  }
  auto& stretch = chunk->free[best];
  const std::size_t begin = stretch.begin;
  stretch = {begin + wanted, stretch.bytes - wanted};
  if (stretch.bytes == 0) chunk->free.erase(chunk->free.begin() + static_cast<std::ptrdiff_t>(best));
  tensor.data = chunk->base.get() + begin;
  in_use_bytes_ += wanted;
  peak_bytes_ = std::max(peak_bytes_, in_use_bytes_);
  if (space_ == Space::planned) held_bytes_ = std::max(held_bytes_, begin + wanted);
  return Loan(this, tensor);
}

void Pool::give_back(const Tensor& tensor) {
  const auto bytes = block_bytes(tensor);
  in_use_bytes_ -= bytes;
  const auto* address = static_cast<char*>(tensor.data);
  const auto chunk = std::ranges::find_if(chunks_, [&](const Chunk& c) {
    return address >= c.base.get() && static_cast<std::size_t>(address - c.base.get()) < c.bytes;
  });
  const auto begin = static_cast<std::size_t>(address - chunk->base.get());
  auto& free = chunk->free;
  const auto made = free.insert(std::ranges::lower_bound(free, begin, {}, &Stretch::begin), {begin, bytes});
  const auto join = [&free](auto first) {
    const auto second = std::next(first);
    if (first->begin + first->bytes != second->begin) return;
    first->bytes += second->bytes;
    free.erase(second);
  };
  if (std::next(made) != free.end()) join(made);
  if (made != free.begin()) join(std::prev(made));
}

void Pool::trim() {
  std::erase_if(chunks_, [this](const Chunk& chunk) {
    const bool unused = chunk.free.size() == 1 && chunk.free.front().bytes == chunk.bytes;
    if (unused && space_ != Space::planned) held_bytes_ -= chunk.bytes;
    return unused;
  });
}

void copy(Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes) {
  if (bytes == 0 || queue.only_plans(static_cast<std::int64_t>(2 * bytes), DType::u8)) return;
  ensure(from_space != Space::planned && to_space != Space::planned, "planned memory is copied on a real queue");
  if (queue.space == Space::device) return device_copy(queue, from, from_space, to, to_space, bytes);
  ensure(from_space == Space::host && to_space == Space::host, "device memory is copied on a host queue");
  std::memcpy(to, from, bytes);
}

SystemMemory host_memory(const std::string& proc, const std::string& groups) {
  SystemMemory memory{figure(proc + "/meminfo", "MemTotal:", 0) * 1024,
                      figure(proc + "/meminfo", "MemAvailable:", 0) * 1024};
  if (memory.available == 0) return memory;
  std::ifstream in(proc + "/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const auto begin = line.find(':');
    const auto end = line.find(':', begin + 1);
    if (begin == std::string::npos || end == std::string::npos) continue;
    const auto controllers = "," + line.substr(begin + 1, end - begin - 1) + ",";
    if (controllers == ",,") apply(groups, path_of(line), kVersion2, memory);
    if (controllers.find(",memory,") != std::string::npos) apply(groups + "/memory", path_of(line), kVersion1, memory);
  }
  return memory;
}

std::size_t resident_bytes() {
  return figure("/proc/self/status", "VmRSS:", 0) * 1024;
}
std::size_t peak_resident_bytes() {
  return figure("/proc/self/status", "VmHWM:", 0) * 1024;
}

std::size_t available_bytes(Space space) {
  return memory_of(space).available;
}

ExitCode exit_code_without(std::size_t bytes, Space space) {
  const auto total = memory_of(space).total;
  return total > 0 && bytes > total ? ExitCode::input : ExitCode::device;
}

}  // namespace seer::device
