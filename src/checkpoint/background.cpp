// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/background.hpp"

#include <cstring>
#include <utility>

namespace seer::checkpoint {
namespace {

constexpr std::int64_t kLineFloats = 16;  // 64 bytes

std::int64_t padded_floats(const Slab& slab) {
  return (slab.end - slab.begin + kLineFloats - 1) / kLineFloats * kLineFloats;
}

}  // namespace

std::int64_t Snapshot::bytes(const std::vector<Slab>& slabs) {
  std::int64_t floats = 0;
  for (const auto& slab : slabs) floats += padded_floats(slab);
  return floats * static_cast<std::int64_t>(sizeof(float));
}

void Snapshot::take(const std::vector<Slab>& slabs) {
  const auto wanted = static_cast<std::size_t>(bytes(slabs));
  if (wanted > buffer_.bytes()) buffer_ = device::Buffer(wanted);
  slabs_ = slabs;
  float* to = buffer_.f32();
  for (auto& slab : slabs_) {
    const float* from = std::exchange(slab.data, to);
    to += padded_floats(slab);
    if (slab.end > slab.begin) {
      std::memcpy(slab.data, from, static_cast<std::size_t>(slab.end - slab.begin) * sizeof(float));
    }
  }
}

Background::Background(const comm::Communicator& comm, bool threaded)
    : comm_(comm.duplicate().named("checkpoint")), stream_(threaded) {}

void Background::start(Job job) {
  ensure(ticket_ == 0, "a checkpoint is started while another is being written");
  outcome_ = {};
  ticket_ = stream_.post([this, job = std::move(job)] {
    const Clock clock;
    try {
      job(comm_);
    } catch (const Error& e) {
      if (!e.agreed()) comm::die(e.message(), static_cast<int>(e.code()));
      outcome_.error = e;
    } catch (const std::exception& e) {
      comm::die(e.what(), static_cast<int>(ExitCode::internal));
    }
    outcome_.seconds = clock.seconds();
  });
}

Background::Outcome Background::wait() {
  stream_.wait(std::exchange(ticket_, 0));
  traffic_ = comm_.traffic();
  return outcome_;
}

}  // namespace seer::checkpoint
