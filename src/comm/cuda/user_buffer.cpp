// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/user_buffer.hpp"

#include <fmt/format.h>
#include <nccl.h>

#include <utility>
#include <vector>

#include "live.hpp"
#include "seer/device/cuda.hpp"

// NCCL has user buffers since 2.19.
#if NCCL_VERSION_CODE >= 21903
#define SEER_NCCL_USER_BUFFERS
#endif

namespace seer::comm {
namespace {

/// Allocates memory that the switch and the network can use; if the driver has none, NCCL gives ordinary memory.
void* allocate(std::size_t bytes) {
  void* data = nullptr;
#if defined(SEER_NCCL_USER_BUFFERS)
  const bool failed = ncclMemAlloc(&data, bytes) != ncclSuccess;
#else
  const bool failed = cudaMalloc(&data, bytes) != cudaSuccess;
#endif
  if (failed) {
    cudaGetLastError();
    throw Error(ExitCode::device,
                fmt::format("NCCL cannot allocate {:.2f} GiB of device memory",
                            static_cast<double>(bytes) / (std::size_t{1} << 30)),
                "use a smaller batch, a smaller parallel.bucket_bytes or parallel.shard");
  }
  return data;
}

void release(void* data) noexcept {
#if defined(SEER_NCCL_USER_BUFFERS)
  ncclMemFree(data);
#else
  cudaFree(data);
#endif
}

}  // namespace

struct UserBuffer::Impl {
  explicit Impl(std::size_t size) : bytes(size) {
    device::make_current();
    if (bytes == 0) return;
    data = allocate(bytes);
    try {
      device::check(cudaMemset(data, 0, bytes), "cudaMemset");
      device::check(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize");  // other queues do not wait for it
    } catch (...) {
      release(data);
      throw;
    }
  }
  ~Impl() {
    for (const auto& [weak, handle] : registered) {
      const auto live = weak.lock();
      if (!live || live->comm() == nullptr) continue;  // its registrations are gone with it
#if defined(SEER_NCCL_USER_BUFFERS)
      ncclCommDeregister(live->comm(), handle);
#endif
    }
    if (data != nullptr) release(data);
  }
  void* data = nullptr;
  std::size_t bytes = 0;
  std::vector<std::pair<std::weak_ptr<Live>, void*>> registered;
};

UserBuffer::UserBuffer() = default;
UserBuffer::UserBuffer(std::size_t bytes) : impl_(std::make_unique<Impl>(bytes)) {}
UserBuffer::UserBuffer(UserBuffer&&) noexcept = default;
UserBuffer& UserBuffer::operator=(UserBuffer&&) noexcept = default;
UserBuffer::~UserBuffer() = default;

void* UserBuffer::data() const {
  return impl_ ? impl_->data : nullptr;
}

std::size_t UserBuffer::bytes() const {
  return impl_ ? impl_->bytes : 0;
}

void UserBuffer::register_with(const BlockCommunicator& comm) {
  if (comm.impl_) register_with(comm.impl_->live);
}

void UserBuffer::register_with([[maybe_unused]] const std::shared_ptr<Live>& live) {
#if defined(SEER_NCCL_USER_BUFFERS)
  if (data() == nullptr || !live || live->comm() == nullptr) return;
  void* handle = nullptr;
  check(ncclCommRegister(live->comm(), data(), bytes(), &handle), "ncclCommRegister");
  impl_->registered.emplace_back(live, handle);
#endif
}

}  // namespace seer::comm
