// SPDX-License-Identifier: Apache-2.0
#include "seer/device/memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "seer/base/error.hpp"

namespace seer::device {
namespace {

constexpr std::size_t kAlign = 64, kHugePage = std::size_t{2} << 20;

std::size_t rounded(std::size_t bytes, std::size_t to) {
  return (bytes + to - 1) / to * to;
}

void* system_allocate(std::size_t bytes) {
  // Large blocks on huge-page boundaries: fewer TLB misses in every pass over an activation.
  const std::size_t align = bytes >= kHugePage ? kHugePage : kAlign;
  void* data = std::aligned_alloc(align, rounded(bytes, align));
  if (data == nullptr) {
    throw Error(ExitCode::device, fmt::format("out of host memory: {} bytes wanted in one block", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
  if (align == kHugePage) madvise(data, rounded(bytes, align), MADV_HUGEPAGE);
  return data;
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

Buffer::Buffer(std::size_t bytes, Space space) : bytes_(bytes) {
  ensure(space == Space::host, "device memory is asked for in a host build");
  if (bytes == 0) return;
  data_ = system_allocate(bytes);
  std::memset(data_, 0, bytes);
}

Buffer::~Buffer() {
  std::free(data_);
}

void Loan::release() {
  if (pool_ != nullptr) pool_->give_back(tensor_.data, block_bytes_);
  pool_ = nullptr;
  tensor_ = {};
}

Loan Pool::tensor(Shape shape, DType dtype) {
  Tensor tensor{nullptr, shape, dtype, space_};
  const std::size_t wanted = rounded(std::max<std::size_t>(static_cast<std::size_t>(tensor.bytes()), 1), kAlign);
  auto found = free_.lower_bound(wanted);
  std::size_t block = wanted;
  if (found != free_.end() && found->first <= wanted + wanted / 8) {
    block = found->first;
    tensor.data = found->second;
    free_.erase(found);
  } else {
    tensor.data = system_allocate(wanted);
    held_bytes_ += wanted;
    ++system_allocations_;
  }
  in_use_bytes_ += block;
  peak_bytes_ = std::max(peak_bytes_, in_use_bytes_);
  return Loan(this, tensor, block);
}

void Pool::give_back(void* data, std::size_t block_bytes) {
  in_use_bytes_ -= block_bytes;
  free_.emplace(block_bytes, data);
}

void Pool::trim() {
  for (auto& [bytes, data] : free_) {
    held_bytes_ -= bytes;
    std::free(data);
  }
  free_.clear();
}

Pool::~Pool() {
  trim();
}

std::size_t available_bytes() {
  return kernel_figure_bytes("/proc/meminfo", "MemAvailable:");
}
std::size_t resident_bytes() {
  return kernel_figure_bytes("/proc/self/status", "VmRSS:");
}
std::size_t peak_resident_bytes() {
  return kernel_figure_bytes("/proc/self/status", "VmHWM:");
}

}  // namespace seer::device
