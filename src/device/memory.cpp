// SPDX-License-Identifier: Apache-2.0
#include "seer/device/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "seer/base/error.hpp"
#include "seer/device/host_memory.hpp"
#include "seer/device/ledger.hpp"
#if defined(SEER_CUDA)
#include "seer/device/cuda.hpp"
#else
#include "seer/device/stand_in.hpp"
#endif

namespace seer::device {
namespace {

constexpr std::size_t kAlign = 64, kHugePage = std::size_t{2} << 20;

std::size_t rounded(std::size_t bytes, std::size_t to) {
  return (bytes + to - 1) / to * to;
}

void* system_allocate(std::size_t bytes, Space space) {
#if defined(SEER_CUDA)
  if (space == Space::device) return device_allocate(bytes);
#else
  if (space == Space::device) return stand_in_allocate(bytes);
#endif
  // Large blocks on huge-page boundaries: fewer TLB misses in every pass over an activation.
  const std::size_t align = bytes >= kHugePage ? kHugePage : kAlign;
  void* data = std::aligned_alloc(align, rounded(bytes, align));
  if (data == nullptr) {
    const auto code = exit_code_without(bytes, Space::host);
    throw Error(code, fmt::format("out of host memory: {} bytes wanted in one block", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
  // Not for the last, incomplete huge page, which would take its full size: hundreds of packed weights end in one.
  if (align == kHugePage) madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return data;
}

/// Does nothing for planned memory or null.
void system_free(void* data, Space space) noexcept {
  if (space == Space::host) std::free(data);
#if defined(SEER_CUDA)
  if (space == Space::device && data != nullptr) device_free(data);
#else
  if (space == Space::device) stand_in_free(data);
#endif
}

void zero(void* data, std::size_t bytes, [[maybe_unused]] Space space) {
#if defined(SEER_CUDA)
  if (space == Space::device) return device_zero(data, bytes);
#else
  const StandInAccess access(space);
#endif
  std::memset(data, 0, bytes);
}

std::size_t kernel_figure_bytes(const char* path, const char* key) {
  std::FILE* file = std::fopen(path, "r");
  if (file == nullptr) return 0;
  char line[256];
  std::size_t kib = 0;
  while (std::fgets(line, sizeof line, file) != nullptr) {
    if (std::strncmp(line, key, std::strlen(key)) == 0) std::sscanf(line + std::strlen(key), "%zu", &kib);
  }
  std::fclose(file);
  return kib * 1024;
}

}  // namespace

Buffer::Buffer(std::size_t bytes, Space space) : bytes_(bytes), space_(space) {
  if (bytes == 0) return;
  if (space == Space::planned) {
    data_ = planned_address();
    return;
  }
  data_ = system_allocate(bytes, space);
  zero(data_, bytes, space);
}

Buffer::~Buffer() {
  system_free(data_, space_);
}

void Loan::release() {
  if (pool_ != nullptr) pool_->give_back(tensor_.data, block_bytes_);
  pool_ = nullptr;
  tensor_ = {};
}

void Pool::grow(std::size_t bytes) {
  Chunk chunk{nullptr, bytes, {}};
  if (space_ == Space::planned) {
    chunk.bytes = std::size_t{1} << 56;  // more than anyone will ask for
    chunk.base = static_cast<char*>(planned_address());
  } else {
    chunk.base = static_cast<char*>(system_allocate(bytes, space_));
    held_bytes_ += bytes;
  }
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
  const std::size_t wanted = rounded(std::max<std::size_t>(static_cast<std::size_t>(tensor.bytes()), 1), kAlign);
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
  tensor.data = chunk->base + begin;
  in_use_bytes_ += wanted;
  peak_bytes_ = std::max(peak_bytes_, in_use_bytes_);
  if (space_ == Space::planned) held_bytes_ = std::max(held_bytes_, begin + wanted);
  return Loan(this, tensor, wanted);
}

void Pool::give_back(void* data, std::size_t block_bytes) {
  in_use_bytes_ -= block_bytes;
  const auto* address = static_cast<char*>(data);
  const auto chunk = std::find_if(chunks_.begin(), chunks_.end(), [&](const Chunk& c) {
    return address >= c.base && static_cast<std::size_t>(address - c.base) < c.bytes;
  });
  const auto begin = static_cast<std::size_t>(address - chunk->base);
  auto& free = chunk->free;
  const auto after = std::lower_bound(free.begin(), free.end(), begin,
                                      [](const Stretch& stretch, std::size_t at) { return stretch.begin < at; });
  const bool joins_after = after != free.end() && begin + block_bytes == after->begin;
  const bool joins_before = after != free.begin() && std::prev(after)->begin + std::prev(after)->bytes == begin;
  if (joins_before) {
    std::prev(after)->bytes += block_bytes + (joins_after ? after->bytes : 0);
    if (joins_after) free.erase(after);
  } else if (joins_after) {
    *after = {begin, block_bytes + after->bytes};
  } else {
    free.insert(after, {begin, block_bytes});
  }
}

void Pool::trim() {
  std::erase_if(chunks_, [this](const Chunk& chunk) {
    const bool unused = chunk.free.size() == 1 && chunk.free.front().bytes == chunk.bytes;
    if (unused && space_ != Space::planned) {
      held_bytes_ -= chunk.bytes;
      system_free(chunk.base, space_);
    }
    return unused;
  });
}

Pool::~Pool() {
  for (auto& chunk : chunks_) system_free(chunk.base, space_);
}

std::size_t available_bytes([[maybe_unused]] Space space) {
#if defined(SEER_CUDA)
  if (space == Space::device) return device_available_bytes();
#endif
  return host_memory().available;
}
std::size_t total_bytes([[maybe_unused]] Space space) {
#if defined(SEER_CUDA)
  if (space == Space::device) return device_total_bytes();
#endif
  return host_memory().total;
}
ExitCode exit_code_without(std::size_t bytes, Space space) {
  const auto total = total_bytes(space);
  return total > 0 && bytes > total ? ExitCode::input : ExitCode::device;
}
std::size_t resident_bytes() {
  return kernel_figure_bytes("/proc/self/status", "VmRSS:");
}
std::size_t peak_resident_bytes() {
  return kernel_figure_bytes("/proc/self/status", "VmHWM:");
}

}  // namespace seer::device
