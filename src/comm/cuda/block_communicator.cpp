// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/block_communicator.hpp"

#include <fmt/format.h>
#include <nccl.h>

#include <algorithm>
#include <string>
#include <utility>

#include "live.hpp"
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
  if (dtype == DType::bf16) return ncclBfloat16;
  if (dtype == DType::f16) return ncclFloat16;
  ensure(dtype == DType::f32, "collectives on a device take f32, f64, bf16 or f16");
  return ncclFloat32;
}

ncclRedOp_t nccl_op(Op op) {
  return op == Op::sum ? ncclSum : op == Op::max ? ncclMax : ncclMin;
}

DeviceRows row(void* data, DType dtype, std::size_t elems) {
  const auto width = static_cast<std::int64_t>(elems);
  return {data, dtype, 1, width, width};
}

void check_version() {
  int found = 0;
  check(ncclGetVersion(&found), "ncclGetVersion");
  if (const auto refusal = nccl_refusal(found, NCCL_VERSION_CODE))
    throw Error(ExitCode::device, *refusal, "load the NCCL that seer was built with, or build seer with this one");
}

}  // namespace

/// Set-up messages use their own communicator, so that the counts of `group` match those of a plan.
BlockCommunicator::Impl::Impl(const Communicator& of, Convert convert_in, bool even_alone)
    : group(of), alone(of.size() == 1 && !even_alone), convert(std::move(convert_in)) {
  if (of.ledger() != nullptr || alone) return;
  const auto talk = of.duplicate().named("NCCL set-up");
  std::string place;
  agree(talk, "starting NCCL", [&] {
    device::make_current();
    check_version();
    place = log::host_name() + " " + device::device_id();
  });
  if (const auto shared = device::shared_device(talk.all_gather(place)); !shared.empty()) {
    throw Error(ExitCode::device, shared,
                "NCCL needs a device for each rank: start as many ranks on a node as it has devices")
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

BlockCommunicator::Impl::~Impl() {
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
void BlockCommunicator::Impl::enter(Kind kind, std::size_t bytes, const device::Queue& queue, const Call& call) {
  if (group.only_plans(kind, bytes) || alone || bytes == 0) return;
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

template <class T>
void BlockCommunicator::Impl::all_reduce(const device::Queue& queue, std::span<T> values, ncclDataType_t type, Op op) {
  enter(Kind::all_reduce, values.size_bytes(), queue, [&] {
    check(ncclAllReduce(values.data(), values.data(), values.size(), type, nccl_op(op), live->comm(), stream_of(queue)),
          "ncclAllReduce");
  });
}

void* BlockCommunicator::Impl::staging(std::size_t bytes) {
  if (group.ledger() != nullptr) return group.staging(bytes);
  if (stage.bytes() < bytes) {
    live->settle();  // running collectives may use the memory that is freed now
    stage = {};
    stage = UserBuffer(bytes);
    stage.register_with(live);
  }
  return stage.data();
}

void BlockCommunicator::Impl::move(device::Queue& queue, const DeviceRows& from, const DeviceRows& to) const {
  if (from.rows == 0 || from.elems == 0) return;
  if (from.dtype != to.dtype) {
    ensure(static_cast<bool>(convert), "16-bit transfers need a conversion function");
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

BlockCommunicator::BlockCommunicator(Communicator group, const device::Queue& queue, Convert convert, bool even_alone)
    : group_(std::move(group)) {
  if (queue.space == device::Space::device) impl_ = std::make_unique<Impl>(group_, std::move(convert), even_alone);
}
BlockCommunicator::BlockCommunicator(BlockCommunicator&&) noexcept = default;
BlockCommunicator& BlockCommunicator::operator=(BlockCommunicator&&) noexcept = default;
BlockCommunicator::~BlockCommunicator() = default;

std::int64_t BlockCommunicator::staging_bytes() const {
  if (!impl_ || group_.ledger() != nullptr) return group_.staging_bytes();
  return static_cast<std::int64_t>(impl_->stage.bytes());
}

void BlockCommunicator::wait(device::Queue& queue) {
  if (!impl_ || !impl_->live) return queue.wait();
  // Only collectives can hang; work behind the last of them in the queue cannot.
  impl_->live->settle();
  queue.wait();
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<float> values, Op op) {
  if (!impl_) return group_.all_reduce(values, op);
  impl_->all_reduce(queue, values, ncclFloat32, op);
}

void BlockCommunicator::all_reduce(device::Queue& queue, std::span<double> values, Op op) {
  if (!impl_) return group_.all_reduce(values, op);
  impl_->all_reduce(queue, values, ncclFloat64, op);
}

void BlockCommunicator::broadcast(device::Queue& queue, void* data, std::size_t bytes, int root) {
  if (!impl_) return group_.broadcast(data, bytes, root);
  impl_->enter(Kind::broadcast, bytes, queue, [&] {
    check(ncclBroadcast(data, data, bytes, ncclUint8, root, impl_->live->comm(), stream_of(queue)), "ncclBroadcast");
  });
}

void BlockCommunicator::sum(device::Queue& queue, std::span<float> values, DType wire, std::size_t device_staging) {
  if (!impl_) return group_.sum(values, wire);
  if (impl_->alone) return;
  if (wire == DType::f32) return all_reduce(queue, values);
  const auto type = nccl_type(wire);
  const auto value_bytes = dtype_bytes(wire);
  const auto most = std::min(std::max<std::size_t>(device_staging / value_bytes, 1), values.size());
  void* stage = impl_->staging(most * value_bytes);
  impl_->enter(Kind::all_reduce, values.size() * value_bytes, queue, [&] {
    for (std::size_t at = 0; at < values.size(); at += most) {
      const auto elems = std::min(most, values.size() - at);
      const auto block = row(values.data() + at, DType::f32, elems), staged = row(stage, wire, elems);
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

void BlockCommunicator::reduce_scatter_parts(device::Queue& queue, std::span<float> whole, DType wire,
                                             std::size_t device_staging) {
  if (!impl_) return group_.reduce_scatter_parts(whole, wire);
  if (impl_->alone) return;
  const auto count = whole.size();
  const auto type = nccl_type(wire);
  const auto value_bytes = dtype_bytes(wire);
  const auto ranks = static_cast<std::size_t>(size()), mine = static_cast<std::size_t>(rank());
  const Rounds rounds(count, size(), device_staging / value_bytes);
  const bool in_place = wire == DType::f32 && count % ranks == 0;
  auto* stage = in_place ? nullptr : static_cast<char*>(impl_->staging(rounds.most_elems() * value_bytes));
  impl_->enter(Kind::reduce_scatter, count * value_bytes, queue, [&] {
    const auto comm = impl_->live->comm();
    const auto stream = stream_of(queue);
    if (in_place) {
      const auto part = count / ranks;
      check(ncclReduceScatter(whole.data(), &whole[mine * part], part, type, ncclSum, comm, stream),
            "ncclReduceScatter");
      return;
    }
    rounds.each([&](std::int64_t at, std::int64_t width) {
      const auto row_bytes = static_cast<std::size_t>(width) * value_bytes;
      for (const auto& rows : rounds.rows(at, width))
        impl_->move(queue, {whole.data() + rows.begin, DType::f32, rows.rows, rows.elems, rows.stride},
                    {stage + static_cast<std::size_t>(rows.first_row) * row_bytes, wire, rows.rows, rows.elems, width});
      // The row of a shorter part ends in old data, whose sum is not used.
      auto* own = stage + mine * row_bytes;
      check(ncclReduceScatter(stage, own, static_cast<std::size_t>(width), type, ncclSum, comm, stream),
            "ncclReduceScatter");
      const auto elems = rounds.elems(rank(), at, width);
      impl_->move(queue, row(own, wire, elems), row(whole.data() + rounds.begin(rank(), at), DType::f32, elems));
    });
  });
}

void BlockCommunicator::all_gather_parts(device::Queue& queue, std::span<float> whole, std::size_t device_staging) {
  if (!impl_) return group_.all_gather_parts(whole);
  if (impl_->alone) return;
  const auto count = whole.size();
  const auto ranks = static_cast<std::size_t>(size()), mine = static_cast<std::size_t>(rank());
  const Rounds rounds(count, size(), device_staging / sizeof(float));
  const bool in_place = count % ranks == 0;
  auto* stage = in_place ? nullptr : static_cast<float*>(impl_->staging(rounds.most_elems() * sizeof(float)));
  impl_->enter(Kind::all_gather, count * sizeof(float), queue, [&] {
    const auto comm = impl_->live->comm();
    const auto stream = stream_of(queue);
    if (in_place) {
      const auto part = count / ranks;
      check(ncclAllGather(&whole[mine * part], whole.data(), part, ncclFloat32, comm, stream), "ncclAllGather");
      return;
    }
    rounds.each([&](std::int64_t at, std::int64_t width) {
      const auto row_elems = static_cast<std::size_t>(width);
      float* own = stage + mine * row_elems;
      const auto elems = rounds.elems(rank(), at, width);
      impl_->move(queue, row(whole.data() + rounds.begin(rank(), at), DType::f32, elems), row(own, DType::f32, elems));
      check(ncclAllGather(own, stage, row_elems, ncclFloat32, comm, stream), "ncclAllGather");
      for (const auto& rows : rounds.rows(at, width))
        impl_->move(
            queue,
            {stage + static_cast<std::size_t>(rows.first_row) * row_elems, DType::f32, rows.rows, rows.elems, width},
            {whole.data() + rows.begin, DType::f32, rows.rows, rows.elems, rows.stride});
    });
  });
}

}  // namespace seer::comm
