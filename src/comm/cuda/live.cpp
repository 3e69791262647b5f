// SPDX-License-Identifier: Apache-2.0
#include "live.hpp"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

#include "seer/device/cuda.hpp"

namespace seer::comm {
namespace {

cudaError_t query(cudaEvent_t event) {
  const auto status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) cudaGetLastError();  // otherwise the next check for errors finds it
  return status;
}

}  // namespace

Error nccl_error(ncclResult_t status, const char* call, std::source_location where) {
  std::string what = fmt::format("{}: {}", call, ncclGetErrorString(status));
  const char* words = ncclGetLastError(nullptr);  // the last error of the process, whatever the communicator
  if (words != nullptr && *words != '\0') what += fmt::format(" ({})", words);
  return Error(ExitCode::device, what,
               status == ncclRemoteError ? "another rank of this communicator ended: its message says why"
                                         : "set NCCL_DEBUG=WARN for more of NCCL's own words",
               where);
}

Live::~Live() {
  abort();  // only if another rank could not start
  for (const auto event : free_) cudaEventDestroy(event);
}

void Live::start(int size, int rank, const ncclUniqueId& id, [[maybe_unused]] Trace* trace) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 1;  // calls return only when their work is in the queue
#if NCCL_VERSION_CODE >= 22700
  config.commName = trace->name.load();  // never freed: it belongs to the watchdog
#endif
  ncclComm_t made = nullptr;
  check(ncclCommInitRankConfig(&made, size, id, rank, &config), "ncclCommInitRankConfig");
  const std::lock_guard lock(mutex_);
  comm_ = made;
}

void Live::under_way(const OpenMark& mark, cudaStream_t stream) {
  const std::lock_guard lock(mutex_);
  cudaEvent_t landed = nullptr;
  if (free_.empty()) {
    device::check(cudaEventCreateWithFlags(&landed, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  } else {
    landed = free_.back();
    free_.pop_back();
  }
  if (const auto status = cudaEventRecord(landed, stream); status != cudaSuccess) {
    free_.push_back(landed);
    device::check(status, "cudaEventRecord");
  }
  flights_.push_back({mark, landed});
}

/// A failed device answers neither "ready" nor "not ready". Its user gets the error; no collective counts as finished.
void Live::retire() {
  while (!flights_.empty() && query(flights_.front().landed) == cudaSuccess) {
    close_mark(flights_.front().mark);
    free_.push_back(flights_.front().landed);
    flights_.pop_front();
  }
}

ncclResult_t Live::look() {
  const std::lock_guard lock(mutex_);
  retire();
  if (comm_ == nullptr) return ncclSuccess;
  ncclResult_t state = ncclSuccess;
  const auto status = ncclCommGetAsyncError(comm_, &state);
  if (status != ncclSuccess) return status;
  return state == ncclInProgress ? ncclSuccess : state;
}

void Live::settle() {
  for (;;) {
    const auto state = look();
    if (state != ncclSuccess) {
      const auto error = nccl_error(state, "waiting for NCCL");
      abort();
      throw error;
    }
    cudaEvent_t next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (flights_.empty()) return;
      next = flights_.front().landed;
    }
    const auto status = query(next);
    if (status != cudaErrorNotReady) device::check(status, "cudaEventQuery");
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void Live::land_all() noexcept {
  for (const auto& flight : flights_) {
    close_mark(flight.mark);
    free_.push_back(flight.landed);
  }
  flights_.clear();
}

void Live::abort() noexcept {
  ncclComm_t gone = nullptr;
  {
    const std::lock_guard lock(mutex_);
    gone = std::exchange(comm_, nullptr);
    land_all();
  }
  if (gone != nullptr) ncclCommAbort(gone);
}

void Live::end() noexcept {
  ncclComm_t gone = nullptr;
  {
    const std::lock_guard lock(mutex_);
    gone = std::exchange(comm_, nullptr);
    land_all();
  }
  if (gone != nullptr) ncclCommDestroy(gone);
}

}  // namespace seer::comm
