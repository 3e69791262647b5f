// SPDX-License-Identifier: Apache-2.0
#include "seer/device/stand_in.hpp"

#if !defined(SEER_CUDA)

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/error.hpp"

namespace seer::device {
namespace {

std::atomic<int> alive{0};

/// Only addresses are reserved: the system provides memory at the first touch.
constexpr std::size_t kReservedBytes = std::size_t{1} << 36;
constexpr std::size_t kAlign = 256, kPage = std::size_t{2} << 20;

/// The memory is one range of addresses, so that one call opens or closes all of it.
struct Memory {
  std::mutex mutex;
  char* base = nullptr;
  std::size_t used = 0;                     ///< from the base; multiples of kPage
  std::map<std::size_t, std::size_t> free;  ///< begin and bytes, below `used`
  std::map<std::size_t, std::size_t> lent;
  int open = 0;

  void reserve() {
    if (base != nullptr) return;
    void* place = mmap(nullptr, kReservedBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) throw Error(ExitCode::device, "no addresses for the stand-in for a device");
    madvise(place, kReservedBytes, MADV_HUGEPAGE);  // fewer pages to open and close
    base = static_cast<char*>(place);
  }
  void protect() {
    if (used > 0) mprotect(base, used, open > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }
  void give_back(std::size_t begin, std::size_t bytes) {
    auto after = free.lower_bound(begin);
    if (after != free.end() && begin + bytes == after->first) {
      bytes += after->second;
      after = free.erase(after);
    }
    if (after != free.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == begin) {
        before->second += bytes;
        return;
      }
    }
    free.emplace(begin, bytes);
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
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(arrivals[i].to, arrivals[i].bytes.data(), arrivals[i].bytes.size());
    }
    count = 0;
  }
};

struct Pinned {
  std::mutex mutex;
  std::map<const char*, std::size_t> blocks;
};
Pinned& pinned() {
  static auto* const made = new Pinned;
  return *made;
}

bool is_pinned(const void* data, std::size_t bytes) {
  const auto* address = static_cast<const char*>(data);
  auto& all = pinned();
  const std::lock_guard lock(all.mutex);
  auto found = all.blocks.upper_bound(address);
  if (found == all.blocks.begin()) return false;
  --found;
  return address + bytes <= found->first + found->second;
}

void need() {
  ensure(has_stand_in(), "work on device memory was asked for in a host build");
}

}  // namespace

StandIn::StandIn() {
  ++alive;
}
StandIn::~StandIn() {
  --alive;
}

bool has_stand_in() {
  return alive > 0;
}

bool stand_in_by_environment() {
  const char* wanted = std::getenv("SEER_STAND_IN_DEVICE");
  const std::string_view text = wanted == nullptr ? "" : wanted;
  if (text.empty() || text == "0") return false;
  if (text != "1") {
    throw Error(ExitCode::input, fmt::format("SEER_STAND_IN_DEVICE=\"{}\"; wanted 0 or 1", text),
                "1 computes on the stand-in for a device, 0 or nothing on the host");
  }
  static const StandIn for_good;
  return true;
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
  if (alive == 0 || data == nullptr || queue.space == Space::planned) return;
  if (on_stand_in(data) == (queue.space == Space::device)) return;
  throw Error(ExitCode::internal,
              fmt::format("{}: {} memory was given to a {} queue", what, on_stand_in(data) ? "device" : "host",
                          queue.space == Space::device ? "device" : "host"));
}

void* stand_in_allocate(std::size_t bytes) {
  need();
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  m.reserve();
  const std::size_t wanted = (bytes + kAlign - 1) / kAlign * kAlign;
  auto found = std::find_if(m.free.begin(), m.free.end(), [&](const auto& part) { return part.second >= wanted; });
  if (found == m.free.end()) {
    const std::size_t more = (wanted + kPage - 1) / kPage * kPage;
    if (more > kReservedBytes - m.used) {
      throw Error(ExitCode::device,
                  fmt::format("out of device memory: {} bytes wanted in one block, {} free of {}", bytes,
                              kReservedBytes - m.used, kReservedBytes),
                  "use a smaller batch");
    }
    const auto begin = m.used;
    m.used += more;
    m.protect();
    m.give_back(begin, more);
    found = std::find_if(m.free.begin(), m.free.end(), [&](const auto& part) { return part.second >= wanted; });
  }
  const auto [begin, size] = *found;
  m.free.erase(found);
  if (size > wanted) m.free.emplace(begin + wanted, size - wanted);
  m.lent.emplace(begin, wanted);
  return m.base + begin;
}

void stand_in_free(void* data) noexcept {
  if (data == nullptr) return;
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  const auto found = m.lent.find(static_cast<std::size_t>(static_cast<char*>(data) - m.base));
  if (found == m.lent.end()) return;
  m.give_back(found->first, found->second);
  m.lent.erase(found);
}

void* stand_in_stream() {
  need();
  return new Stream;
}

void stand_in_drop(void* stream) noexcept {
  auto* const mine = static_cast<Stream*>(stream);
  if (mine == nullptr) return;
  mine->arrive();
  delete mine;
}

void stand_in_copy(const Queue& queue, const void* from, Space from_space, void* to, Space to_space,
                   std::size_t bytes) {
  need();
  ensure(on_stand_in(from) == (from_space == Space::device) && on_stand_in(to) == (to_space == Space::device),
         "a copy names another memory space than its pointer lies in");
  auto* const stream = static_cast<Stream*>(queue.stream);
  const StandInAccess access(queue);
  if (stream != nullptr && to_space == Space::host && is_pinned(to, bytes)) {
    stream->add(to, from, bytes);
    return;
  }
  if (stream != nullptr)
    stream->arrive();  // `from` may wait for an arrival, and a copy to memory that is not pinned blocks anyway
  std::memcpy(to, from, bytes);
}

void stand_in_wait(const Queue& queue) {
  if (queue.stream != nullptr) static_cast<Stream*>(queue.stream)->arrive();
}

void stand_in_pin(const void* data, std::size_t bytes) {
  auto& all = pinned();
  const std::lock_guard lock(all.mutex);
  all.blocks[static_cast<const char*>(data)] = bytes;
}

void stand_in_unpin(const void* data) noexcept {
  auto& all = pinned();
  const std::lock_guard lock(all.mutex);
  all.blocks.erase(static_cast<const char*>(data));
}

}  // namespace seer::device

#endif
