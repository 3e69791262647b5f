// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/device_communicator.hpp"

#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "device_communicator_impl.hpp"
#include "record.hpp"
#include "rounds.hpp"
#include "seer/base/log.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/cuda.hpp"
#include "versions.hpp"

namespace seer::comm {
namespace {

using device::stream_of;

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::f16:
      return ncclFloat16;
    case DType::u8:
      break;
  }
  ensure(false, "collectives on a device take f32, f64, bf16 or f16");
  return ncclFloat32;
}

ncclRedOp_t nccl_op(Op op) {
  return op == Op::sum ? ncclSum : op == Op::max ? ncclMax : ncclMin;
}

const char* name_of(device::Message::Kind kind) {
  constexpr const char* names[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier"};
  return names[static_cast<std::size_t>(kind)];
}

void check_version() {
  int found = 0;
  check(ncclGetVersion(&found), "ncclGetVersion");
  if (const auto refusal = nccl_refusal(found, NCCL_VERSION_CODE)) {
    throw Error(ExitCode::device, *refusal, "load the NCCL that seer was built with, or build it with this one");
  }
}

}  // namespace

/// Set-up messages use their own communicator, so that the counts of `group` match those of a plan.
DeviceCommunicator::Impl::Impl(const Communicator& of, Convert convert_in) : convert(std::move(convert_in)) {
  group.rank_ = of.rank_;
  group.size_ = of.size_;
  group.record_ = of.record_;
  if (of.ledger() != nullptr || of.size() == 1) return;
  const auto talk = of.duplicate().named("NCCL set-up");
  std::string place;
  agree(talk, "starting NCCL", [&] {
    device::make_current();
    check_version();
    place = log::host_name() + " " + device::device_id();
  });
  if (const auto shared = device::shared_device(talk.all_gather(place)); !shared.empty()) {
    throw Error(ExitCode::device, shared, "NCCL wants a device for each rank: start as many ranks a node as it has")
        .as_agreed();
  }
  ncclUniqueId id{};
  agree(talk, "starting NCCL", [&] {
    if (talk.is_root()) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  });
  talk.broadcast(&id, sizeof id);
  live = std::make_shared<Live>();
  agree(talk, "starting NCCL", [&] { live->start(of.size(), of.rank(), id, group.record_->trace); });
  watched.emplace(live);
}

DeviceCommunicator::Impl::~Impl() {
  if (!live) return;
  bool whole = std::uncaught_exceptions() <= exceptions;
  try {
    if (whole) live->settle();
  } catch (...) {  // the device, or another rank, is gone
    whole = false;
  }
  watched.reset();
  if (!whole) live->abort();
  stage = {};
  live->end();
}

template <class Call>
void DeviceCommunicator::Impl::enter(Kind kind, std::size_t bytes, const device::Queue& queue, const Call& call) {
  if (group.only_plans(kind, bytes) || group.size() == 1 || bytes == 0) return;
  ensure(queue.space == device::Space::device, "a collective on device memory needs a device queue");
  ensure(live != nullptr && live->comm() != nullptr, "a collective after its communicator was aborted");
  device::make_current();
  // The watching thread would query an event that belongs to a recording, and nobody would count the replays.
  auto recording = cudaStreamCaptureStatusNone;
  device::check(cudaStreamIsCapturing(stream_of(queue), &recording), "cudaStreamIsCapturing");
  ensure(recording == cudaStreamCaptureStatusNone, "a collective cannot be recorded: end the recording before it");
  const auto mark = open_mark(group.record_->trace, name_of(kind), bytes);
  try {
    call();
    live->under_way(mark, stream_of(queue));
  } catch (...) {
    close_mark(mark);
    throw;
  }
}

void* DeviceCommunicator::Impl::staging(std::size_t bytes) {
  if (group.ledger() != nullptr) return group.staging(bytes);
  if (stage.bytes() < bytes) {
    live->settle();  // running collectives may use the memory that is freed now
    stage = {};
    stage = UserBuffer(bytes);
    stage.register_with(live);
  }
  return stage.data();
}

void DeviceCommunicator::Impl::move(device::Queue& queue, const DeviceRows& from, const DeviceRows& to) const {
  if (from.rows == 0 || from.elems == 0) return;
  if (from.dtype != to.dtype) {
    ensure(static_cast<bool>(convert), "a wire of 16 bits needs a conversion");
    return convert(queue, from, to);
  }
  const auto value_bytes = dtype_bytes(from.dtype);
  const auto row_bytes = static_cast<std::size_t>(from.elems) * value_bytes;
  const auto from_pitch = static_cast<std::size_t>(from.stride) * value_bytes;
  const auto to_pitch = static_cast<std::size_t>(to.stride) * value_bytes;
  const auto stream = stream_of(queue);
  if (std::max(from_pitch, to_pitch) <= INT_MAX && from.rows > 1) {  // CUDA's limit is this or a little less
    device::check(cudaMemcpy2DAsync(to.data, to_pitch, from.data, from_pitch, row_bytes,
                                    static_cast<std::size_t>(from.rows), cudaMemcpyDeviceToDevice, stream),
                  "cudaMemcpy2DAsync");
    return;
  }
  for (std::size_t r = 0; r < static_cast<std::size_t>(from.rows); ++r) {
    device::check(cudaMemcpyAsync(static_cast<char*>(to.data) + r * to_pitch,
                                  static_cast<const char*>(from.data) + r * from_pitch, row_bytes,
                                  cudaMemcpyDeviceToDevice, stream),
                  "cudaMemcpyAsync");
  }
}

DeviceCommunicator::DeviceCommunicator(const Communicator& group, Convert convert)
    : impl_(std::make_unique<Impl>(group, std::move(convert))) {}
DeviceCommunicator::DeviceCommunicator(DeviceCommunicator&&) noexcept = default;
DeviceCommunicator& DeviceCommunicator::operator=(DeviceCommunicator&&) noexcept = default;
DeviceCommunicator::~DeviceCommunicator() = default;

int DeviceCommunicator::rank() const {
  return impl_->group.rank();
}
int DeviceCommunicator::size() const {
  return impl_->group.size();
}

std::int64_t DeviceCommunicator::staging_bytes() const {
  if (impl_->group.ledger() != nullptr) return impl_->group.staging_bytes();
  return static_cast<std::int64_t>(impl_->stage.bytes());
}

void DeviceCommunicator::wait(device::Queue& queue) {
  if (!impl_->live) return queue.wait();
  // Only collectives can hang; work behind the last of them in the queue cannot.
  impl_->live->settle();
  queue.wait();
}

void DeviceCommunicator::all_reduce(device::Queue& queue, float* values, std::size_t count, Op op) {
  all_reduce(queue, values, count, DType::f32, op);
}

void DeviceCommunicator::all_reduce(device::Queue& queue, double* values, std::size_t count, Op op) {
  impl_->enter(Kind::all_reduce, count * sizeof(double), queue, [&] {
    check(ncclAllReduce(values, values, count, ncclFloat64, nccl_op(op), impl_->live->comm(), stream_of(queue)),
          "ncclAllReduce");
  });
}

void DeviceCommunicator::all_reduce(device::Queue& queue, void* values, std::size_t count, DType dtype, Op op) {
  const auto type = nccl_type(dtype);
  impl_->enter(Kind::all_reduce, count * dtype_bytes(dtype), queue, [&] {
    check(ncclAllReduce(values, values, count, type, nccl_op(op), impl_->live->comm(), stream_of(queue)),
          "ncclAllReduce");
  });
}

void DeviceCommunicator::broadcast(device::Queue& queue, void* data, std::size_t bytes, int root) {
  impl_->enter(Kind::broadcast, bytes, queue, [&] {
    check(ncclBroadcast(data, data, bytes, ncclUint8, root, impl_->live->comm(), stream_of(queue)), "ncclBroadcast");
  });
}

void DeviceCommunicator::sum(device::Queue& queue, float* values, std::size_t count, DType wire,
                             std::size_t staging_bytes) {
  if (size() == 1) return;
  if (wire == DType::f32) return all_reduce(queue, values, count);
  const auto type = nccl_type(wire);
  const auto value_bytes = dtype_bytes(wire);
  const auto most = std::min(std::max<std::size_t>(staging_bytes / value_bytes, 1), count);
  void* stage = impl_->staging(most * value_bytes);
  impl_->enter(Kind::all_reduce, count * value_bytes, queue, [&] {
    for (std::size_t at = 0; at < count; at += most) {
      const auto elems = std::min(most, count - at);
      const auto width = static_cast<std::int64_t>(elems);
      const DeviceRows block{values + at, DType::f32, 1, width, width}, staged{stage, wire, 1, width, width};
      impl_->move(queue, block, staged);
      check(ncclAllReduce(stage, stage, elems, type, ncclSum, impl_->live->comm(), stream_of(queue)), "ncclAllReduce");
      impl_->move(queue, staged, block);
    }
  });
}

// ncclReduceScatter and ncclAllGather need equal counts, but parts may differ by one element. If the number of ranks
// divides the block, NCCL works in place, which is fastest. Otherwise the block goes through staging memory with rows
// of equal width. That costs one more read and write of it at the memory's speed: some 3 TB/s on an H100, where NVLink
// has 0.3 TB/s and a network less. The alternative, ncclReduce or ncclBroadcast for each rank in one group, needs no
// staging. But it has as many collectives as ranks, each with a latency that grows with the ranks, and cannot use the
// sums in NVLink's or the network's switch. 16-bit transfers need staging in any case, and then the padding is free.

void DeviceCommunicator::reduce_scatter_parts(device::Queue& queue, float* whole, std::size_t count, DType wire,
                                              std::size_t staging_bytes) {
  if (size() == 1) return;
  const auto type = nccl_type(wire);
  const auto value_bytes = dtype_bytes(wire);
  const auto ranks = static_cast<std::size_t>(size()), mine = static_cast<std::size_t>(rank());
  const Rounds rounds(count, size(), staging_bytes / value_bytes);
  const bool in_place = wire == DType::f32 && count % ranks == 0;
  auto* stage = in_place ? nullptr : static_cast<char*>(impl_->staging(rounds.most_elems() * value_bytes));
  impl_->enter(Kind::reduce_scatter, count * value_bytes, queue, [&] {
    const auto comm = impl_->live->comm();
    const auto stream = stream_of(queue);
    if (in_place) {
      const auto part = count / ranks;
      check(ncclReduceScatter(whole, whole + mine * part, part, type, ncclSum, comm, stream), "ncclReduceScatter");
      return;
    }
    rounds.each([&](std::int64_t at, std::int64_t width) {
      const auto row_bytes = static_cast<std::size_t>(width) * value_bytes;
      for (const auto& rows : rounds.rows(at, width)) {
        impl_->move(queue, {whole + rows.begin, DType::f32, rows.rows, rows.elems, rows.stride},
                    {stage + static_cast<std::size_t>(rows.first_row) * row_bytes, wire, rows.rows, rows.elems, width});
      }
      // The row of a shorter part ends in old data, whose sum is not used.
      auto* own = stage + mine * row_bytes;
      check(ncclReduceScatter(stage, own, static_cast<std::size_t>(width), type, ncclSum, comm, stream),
            "ncclReduceScatter");
      const auto elems = static_cast<std::int64_t>(rounds.elems(rank(), at, width));
      impl_->move(queue, {own, wire, 1, elems, elems}, {whole + rounds.begin(rank(), at), DType::f32, 1, elems, elems});
    });
  });
}

void DeviceCommunicator::all_gather_parts(device::Queue& queue, float* whole, std::size_t count,
                                          std::size_t staging_bytes) {
  if (size() == 1) return;
  const auto ranks = static_cast<std::size_t>(size()), mine = static_cast<std::size_t>(rank());
  const Rounds rounds(count, size(), staging_bytes / sizeof(float));
  const bool in_place = count % ranks == 0;
  auto* stage = in_place ? nullptr : static_cast<float*>(impl_->staging(rounds.most_elems() * sizeof(float)));
  impl_->enter(Kind::all_gather, count * sizeof(float), queue, [&] {
    const auto comm = impl_->live->comm();
    const auto stream = stream_of(queue);
    if (in_place) {
      const auto part = count / ranks;
      check(ncclAllGather(whole + mine * part, whole, part, ncclFloat32, comm, stream), "ncclAllGather");
      return;
    }
    rounds.each([&](std::int64_t at, std::int64_t width) {
      const auto row_elems = static_cast<std::size_t>(width);
      float* own = stage + mine * row_elems;
      const auto elems = static_cast<std::int64_t>(rounds.elems(rank(), at, width));
      impl_->move(queue, {whole + rounds.begin(rank(), at), DType::f32, 1, elems, elems},
                  {own, DType::f32, 1, elems, elems});
      check(ncclAllGather(own, stage, row_elems, ncclFloat32, comm, stream), "ncclAllGather");
      for (const auto& rows : rounds.rows(at, width)) {
        impl_->move(
            queue,
            {stage + static_cast<std::size_t>(rows.first_row) * row_elems, DType::f32, rows.rows, rows.elems, width},
            {whole + rows.begin, DType::f32, rows.rows, rows.elems, rows.stride});
      }
    });
  });
}

}  // namespace seer::comm
