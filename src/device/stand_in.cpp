// SPDX-License-Identifier: Apache-2.0
// The stand-in, and what a host build has in place of src/device/cuda.
#include "seer/device/stand_in.hpp"

#if !defined(SEER_CUDA)

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "device_memory.hpp"
#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/graph.hpp"

namespace seer::device {
namespace {

/// Only addresses are reserved: the system provides memory at the first touch.
constexpr std::size_t kReservedBytes = std::size_t{1} << 36;
constexpr std::size_t kLeastBlock = 256;

/// The memory is one range of addresses, so that one call opens or closes all of it. Blocks are powers of two.
struct Memory {
  std::mutex mutex;
  char* base = nullptr;
  std::size_t used = 0;                            ///< from the base
  std::map<std::size_t, std::vector<char*>> free;  ///< by size
  std::map<void*, std::size_t> lent;               ///< sizes
  int open = 0;
  std::map<const char*, std::size_t> pinned;  ///< blocks of host memory

  void reserve() {
    if (base != nullptr) return;
    void* place = mmap(nullptr, kReservedBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) throw Error(ExitCode::device, "cannot reserve addresses for the stand-in device");
    madvise(place, kReservedBytes, MADV_HUGEPAGE);  // fewer pages to open and close
    base = static_cast<char*>(place);
  }
  void protect() {
    constexpr std::size_t kHugePage = std::size_t{2} << 20;  // splitting one would cost time at every call
    if (used > 0)
      mprotect(base, (used + kHugePage - 1) / kHugePage * kHugePage, open > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
};

Memory& memory() {
  static auto* const made = new Memory;  // never destroyed: static buffers may be freed later
  return *made;
}

/// A stream holds copies to pinned memory that were made but have not arrived yet.
struct Stream {
  struct Arrival {
    void* to = nullptr;
    std::vector<char> bytes;
  };
  std::vector<Arrival> arrivals;  ///< only the first `count` are in use; the others keep their memory
  std::size_t count = 0;

  void add(void* to, const void* from, std::size_t bytes) {
    if (count == arrivals.size()) arrivals.emplace_back();
    auto& arrival = arrivals[count++];
    arrival.to = to;
    arrival.bytes.resize(bytes);
    std::memcpy(arrival.bytes.data(), from, bytes);
  }
  void arrive() {
    for (std::size_t i = 0; i < count; ++i)
      std::memcpy(arrivals[i].to, arrivals[i].bytes.data(), arrivals[i].bytes.size());
    count = 0;
  }
};

bool is_pinned(const void* data, std::size_t bytes) {
  const auto* address = static_cast<const char*>(data);
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  auto found = m.pinned.upper_bound(address);
  if (found == m.pinned.begin()) return false;
  --found;
  return address + bytes <= found->first + found->second;
}

void need() {
  ensure(has_stand_in(), "a host build has no device memory");
}

}  // namespace

int bind_device() {
  const char* wanted = std::getenv("SEER_STAND_IN_DEVICE");
  const std::string_view text = wanted == nullptr ? "" : wanted;
  if (text.empty() || text == "0") return -1;
  if (text != "1") {
    throw Error(ExitCode::input, fmt::format("SEER_STAND_IN_DEVICE=\"{}\"; wanted 0 or 1", text),
                "1: compute on the stand-in device; 0 or empty: compute on the host");
  }
  static const StandIn for_good;
  return 0;
}

int bound_device() {
  return has_stand_in() ? 0 : -1;
}
int compute_capability() {
  return 0;
}
std::string device_id() {
  return has_stand_in() ? fmt::format("stand-in {}", getpid()) : "";
}
std::string describe_device() {
  return has_stand_in() ? "a stand-in device for tests: computes on the host, in separate memory" : "";
}

void StandInAccess::open() {
  need();
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  if (m.open++ == 0) m.protect();
}

void StandInAccess::close() noexcept {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  if (--m.open == 0) m.protect();
}

bool on_stand_in(const void* data) {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto* address = static_cast<const char*>(data);
  return m.base != nullptr && address >= m.base && address < m.base + kReservedBytes;
}

void expect_reached(const Queue& queue, const void* data, std::string_view what) {
  if (!has_stand_in() || data == nullptr || queue.space == Space::planned) return;
  if (on_stand_in(data) == (queue.space == Space::device)) return;
  throw Error(ExitCode::internal,
              fmt::format("{}: {} memory was given to a {} queue", what, on_stand_in(data) ? "device" : "host",
                          queue.space == Space::device ? "device" : "host"));
}

void* device_allocate(std::size_t bytes) {
  need();
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  m.reserve();
  const std::size_t size = std::bit_ceil(std::max(bytes, kLeastBlock));
  auto& free = m.free[size];
  if (free.empty()) {
    if (size > kReservedBytes - m.used) return nullptr;
    free.push_back(m.base + m.used);
    m.used += size;
    m.protect();
  }
  char* const data = free.back();
  free.pop_back();
  m.lent.emplace(data, size);
  return data;
}

void device_free(void* data) noexcept {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto block = m.lent.extract(data);
  if (block) m.free[block.mapped()].push_back(static_cast<char*>(data));
}

void device_zero(void* data, std::size_t bytes) {
  const StandInAccess access(Space::device);
  std::memset(data, 0, bytes);
}

SystemMemory device_memory() {
  return host_memory();
}

void device_copy(const Queue& queue, const void* from, Space from_space, void* to, Space to_space, std::size_t bytes) {
  need();
  ensure(on_stand_in(from) == (from_space == Space::device) && on_stand_in(to) == (to_space == Space::device),
         "a copy names another memory space than its pointer lies in");
  auto* const stream = static_cast<Stream*>(queue.stream);
  const StandInAccess access(queue);
  if (stream != nullptr && to_space == Space::host && is_pinned(to, bytes)) {
    stream->add(to, from, bytes);
    return;
  }
  if (stream != nullptr) stream->arrive();  // `from` may wait for an arrival; copies to memory not pinned block anyway
  std::memcpy(to, from, bytes);
}

void Queue::wait() const {
  if (space == Space::device && stream != nullptr) static_cast<Stream*>(stream)->arrive();
}

DeviceQueue::DeviceQueue(Priority) {
  if (!has_stand_in())
    throw Error(ExitCode::device, "a host build has no device queues", "configure with -DSEER_CUDA=ON");
  queue_ = {.space = Space::device, .stream = new Stream, .ledger = nullptr};
}
DeviceQueue::~DeviceQueue() {
  queue_.wait();
  delete static_cast<Stream*>(queue_.stream);
}
void DeviceQueue::follow(const Queue&) {}  // the other queue's work is done already

PinnedBuffer::PinnedBuffer(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_.reset(std::calloc(bytes, 1));
  if (data_ == nullptr) {
    throw Error(ExitCode::device, fmt::format("out of host memory: cannot allocate a block of {} bytes", bytes),
                "use a smaller batch, smaller crops or more ranks");
  }
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  m.pinned[static_cast<const char*>(data())] = bytes;
}
void PinnedBuffer::Free::operator()(void* data) const noexcept {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  m.pinned.erase(static_cast<const char*>(data));
  std::free(data);
}

// A host build records nothing, and so has nothing to replay.
void Graph::replay(Queue&) const {
  ensure(false, "a recording was replayed in a host build");
}
Recording::Recording(Queue& queue) : queue_(queue) {
  throw Error(ExitCode::device, "a host build cannot record work", "configure with -DSEER_CUDA=ON");
}
Recording::~Recording() = default;
Graph Recording::end() {
  ensure(open_, "a recording was ended in a host build");
  return {};
}
bool records(const Queue&) {
  return false;
}

}  // namespace seer::device

#endif
