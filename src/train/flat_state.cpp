// SPDX-License-Identifier: Apache-2.0
#include "seer/train/flat_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::train {
namespace {

Sharding sharding_of(const config::Parallel& parallel) {
  constexpr std::string_view kNames[] = {"none", "optimizer", "gradients", "parameters"};
  const auto* const found = std::ranges::find(kNames, parallel.shard);
  ensure(found != std::end(kNames), "parallel.shard has a value that config does not know");
  return static_cast<Sharding>(found - std::begin(kNames));
}

int group_size_of(const config::Parallel& parallel, int ranks) {
  if (sharding_of(parallel) == Sharding::none) return 1;
  const auto wanted = parallel.shard_group == 0 ? ranks : parallel.shard_group;
  if (wanted > ranks || ranks % wanted != 0) {
    throw Error(ExitCode::input, fmt::format("parallel.shard_group = {} does not divide the {} ranks", wanted, ranks),
                "use 0 (all ranks) or a size that divides them, such as the ranks of a node")
        .as_agreed();
  }
  return static_cast<int>(wanted);
}

std::size_t floats(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

/// The type of gradients in messages. "half" means the compute type, or bf16 if that is fp32.
DType wire_of(const config::Precision& precision) {
  if (precision.reduce == "fp32") return DType::f32;
  return precision.compute == "fp16_o1" ? DType::f16 : DType::bf16;
}

/// Converts rows of a block to the message type, and back.
void convert_rows(device::Queue& queue, const comm::DeviceRows& from, const comm::DeviceRows& to) {
  const auto view = [&](const comm::DeviceRows& rows) {
    return device::Tensor{rows.data, {1, 1, 1, rows.rows * rows.elems}, rows.dtype, queue.space};
  };
  const bool joined = from.stride == from.elems && to.stride == to.elems;
  if (joined) return kernels::cast(queue, view(from), view(to));
  kernels::cast_rows(queue, view(from), from.stride, view(to), to.stride, from.rows, from.elems);
}

/// Linux grants memory that does not exist, and kills the run without a message when it is touched. So the memory of
/// all ranks of a node must fit now. A device serves one rank.
void check_memory(const comm::Communicator& comm, device::Space space, std::size_t bytes, std::int64_t parameters) {
  const bool device = space == device::Space::device;
  const auto node_ranks = device ? 1.0 : static_cast<double>(comm.node().size());
  comm::agree(comm, "checking the memory", [&] {
    const double wanted = static_cast<double>(bytes) * node_ranks;
    const auto available = static_cast<double>(device::available_bytes(space));
    if (available == 0 || wanted <= available) return;
    // If it exceeds the total memory, every such node would refuse again: the exit code says which.
    throw Error(device::exit_code_without(static_cast<std::size_t>(wanted), space),
                fmt::format("{} parameters with gradients and momentum take {:.1f} GiB {}, which has {:.1f} GiB left",
                            parameters, wanted / (1 << 30),
                            device ? "of the device" : fmt::format("for the {} ranks of this node", node_ranks),
                            available / (1 << 30)),
                "use a smaller model.preset or head.dims, fewer ranks a node, or parallel.shard");
  });
}

}  // namespace

FlatState::FlatState(const config::Config& config, const comm::Communicator& comm, const nn::Model& model,
                     Phases& phases, const device::Queue& queue, bool teacher)
    : comm_(&comm),
      table_(&model.parameters()),
      phases_(&phases),
      sharding_(sharding_of(config.parallel)),
      wire_(wire_of(config.precision)),
      queue_(queue),
      group_(comm.split_groups(group_size_of(config.parallel, comm.size())).named("shard"), queue, convert_rows),
      replicas_(comm.split_across(group_.size()).named("replicas"), queue, convert_rows),
      norms_(group_.group().duplicate().named("norms"), queue),
      optimizer_(config.optimizer, *table_, queue),
      stream_(config.parallel.overlap && comm.size() > 1, comm.ledger(), queue) {
  if (group_.size() == 1) sharding_ = Sharding::none;
  cut(model, config.parallel.bucket_bytes);
  const auto whole = table_->block_elems();
  const auto parameters = shards(Sharding::parameters) ? own_elems_ : whole;
  const auto gradients = shards(Sharding::gradients) ? 0 : whole;
  const auto own_gradients = shards(Sharding::gradients) ? own_elems_ : 0;
  std::int64_t slots[2] = {0, 0};
  for (const auto& b : buckets_) slots[index_of(b) % 2] = std::max(slots[index_of(b) % 2], b.elems());
  const int slot_pairs = shards(Sharding::parameters) ? 2 : shards(Sharding::gradients) ? 1 : 0;
  if (comm.ledger() == nullptr) {
    const auto elems =
        (teacher ? 2 : 1) * parameters + gradients + own_gradients + own_elems_ + slot_pairs * (slots[0] + slots[1]);
    check_memory(comm, queue_.space, floats(elems) * sizeof(float), table_->parameter_count());
  }
  const auto block = [&](std::int64_t elems) { return device::Buffer::floats(floats(elems), queue_.space); };
  parameters_ = block(parameters);
  gradients_ = block(gradients);
  own_gradients_ = block(own_gradients);
  momenta_ = block(own_elems_);
  if (teacher) teacher_ = block(parameters);
  for (int i = 0; i < 2; ++i) {
    if (slot_pairs > 0) gradient_slots_[i] = block(slots[i]);
    if (slot_pairs > 1) parameter_slots_[i] = block(slots[i]);
  }
}

/// Joins the trunk's segments until a bucket has its bytes. Segments of heads, few and large, are a bucket each.
void FlatState::cut(const nn::Model& model, std::int64_t bucket_bytes) {
  const auto begins = model.segment_begins();
  const auto trunk_segments = model.trunk().segments();
  std::int64_t begin = 0;
  std::size_t first = 0, tensors = 0;
  for (std::size_t s = 0; s + 1 < begins.size(); ++s) {
    bucket_of_.push_back(buckets_.size());
    const auto end = begins[s + 1];
    const bool full = (end - begin) * static_cast<std::int64_t>(sizeof(float)) >= bucket_bytes;
    if (!full && s + 1 < trunk_segments) continue;
    Bucket b;
    b.begin = begin;
    b.end = end;
    b.own_begin = begin + comm::balanced_begin(end - begin, group_.rank(), group_.size());
    b.own_end = begin + comm::balanced_begin(end - begin, group_.rank() + 1, group_.size());
    b.packed = own_elems_;
    b.first_segment = first;
    b.last_segment = s;
    b.part = Optimizer::part(*table_, b.own_begin, b.own_end, queue_.space);
    b.first_tensor = tensors;
    for (; tensors < table_->entries().size() && table_->entries()[tensors].offset < end; ++tensors) {
      const auto& tensor = table_->entries()[tensors];
      if (tensor.treatment.unit_rows) b.unit_rows.push_back(&tensor);
    }
    b.last_tensor = tensors;
    own_elems_ += b.own_elems();
    buckets_.push_back(std::move(b));
    begin = end;
    first = s + 1;
  }
}

std::vector<float> FlatState::whole_bucket(
    const Bucket& b, const std::function<void(const nn::Parameter&, float* values)>& tensor) const {
  std::vector<float> whole(floats(b.elems()));
  for (auto t = b.first_tensor; t < b.last_tensor; ++t) {
    const auto& p = table_->entries()[t];
    tensor(p, whole.data() + (p.offset - b.begin));
  }
  return whole;
}

void FlatState::fill_momenta(const std::function<void(const nn::Parameter&, float* values)>& tensor) {
  settle();
  for (const auto& b : buckets_) {
    const auto whole = whole_bucket(b, tensor);
    device::copy(queue_, whole.data() + (b.own_begin - b.begin), device::Space::host, own_momenta(b), queue_.space,
                 floats(b.own_elems()) * sizeof(float));
    queue_.wait();
  }
}

void FlatState::fill(const std::function<void(const nn::Parameter&, float* values)>& tensor) {
  settle();
  for (auto& b : buckets_) {
    const auto whole = whole_bucket(b, tensor);
    const bool part = shards(Sharding::parameters);
    device::copy(queue_, whole.data() + (part ? b.own_begin - b.begin : 0), device::Space::host,
                 part ? own_parameters(b) : whole_parameters_of(b), queue_.space,
                 floats(part ? b.own_elems() : b.elems()) * sizeof(float));
    queue_.wait();
  }
  follow(0);
  next_version();
}

void FlatState::follow(double momentum) {
  if (teacher_.bytes() == 0) return;
  forget_gathered();
  const auto elems = static_cast<std::int64_t>(teacher_.bytes() / sizeof(float));
  kernels::follow(queue_, view(parameters_.f32(), elems), momentum, view(teacher_.f32(), elems));
}

void FlatState::add_to(Footprint& footprint) const {
  const auto bytes = [](const auto&... buffers) { return static_cast<std::int64_t>((buffers.bytes() + ...)); };
  footprint.parameters += bytes(parameters_, teacher_, parameter_slots_[0], parameter_slots_[1]);
  footprint.gradients += bytes(gradients_, own_gradients_, gradient_slots_[0], gradient_slots_[1]);
  footprint.momentum += bytes(momenta_);
  footprint.communication += group_.staging_bytes() + replicas_.staging_bytes() + norms_.staging_bytes();
}

void FlatState::begin_update(Sums sums) {
  sums_ = sums;
  exposed_ms_ = 0;
  closed_ = measured_ = known_ = buckets_.size();
  // Of a tensor that is split over ranks, each rank adds its part of the squared norm, or zero.
  if (norms_.size() > 1) optimizer_.forget_squares(queue_);
}

void FlatState::wait(Phase phase, comm::Stream::Ticket ticket) {
  if (ticket == 0) return;
  const auto timer = phases_->time(phase);
  const double began_ms = phases_->now_ms();
  stream_.wait(ticket);
  exposed_ms_ += phases_->now_ms() - began_ms;
}

/// Parameters mode: starts to gather a bucket. The bucket that had its slot before has been dropped.
void FlatState::fetch(Bucket& b) {
  if (b.gathered) return;
  b.gathered = true;
  float* whole = whole_parameters_of(b);
  kernels::copy(queue_, view(own(used(), b), b.own_elems()), view(own_part(b, whole), b.own_elems()));
  post_gather(b);
}

/// A job captures two pointers at most: with more, std::function allocates on the heap.
void FlatState::post_gather(Bucket& b) {
  b.gather = stream_.post([this, bucket = &b] {
    auto queue = stream_.queue();
    group_.all_gather_parts(queue, std::span(whole_parameters_of(*bucket), floats(bucket->elems())));
  });
}

void FlatState::need(nn::Context& ctx, std::size_t segment, Direction direction) {
  auto& b = buckets_[bucket_of_.at(segment)];
  if (!shards(Sharding::parameters)) {
    wait(Phase::gather, std::exchange(b.gather, 0));
    ctx.parameters = used().f32();
    ctx.parameters_begin = 0;
    ctx.version = version_;
    return;
  }
  fetch(b);
  const auto next = static_cast<std::ptrdiff_t>(index_of(b)) + static_cast<int>(direction);
  if (next >= 0 && next < std::ssize(buckets_)) fetch(buckets_[static_cast<std::size_t>(next)]);
  wait(Phase::gather, std::exchange(b.gather, 0));
  ctx.parameters = whole_parameters_of(b);
  ctx.parameters_begin = b.begin;
  ctx.version = 0;  // the same memory holds different buckets in turn
}

void FlatState::drop(std::size_t segment, Direction direction) {
  if (!shards(Sharding::parameters)) return;
  auto& b = buckets_[bucket_of_.at(segment)];
  if (segment == (direction == Direction::forward ? b.last_segment : b.first_segment)) b.gathered = false;
}

void FlatState::open_gradients(nn::Context& ctx, std::size_t segment) {
  auto& b = buckets_[bucket_of_.at(segment)];
  ctx.add_gradients = shards(Sharding::gradients);
  if (!shards(Sharding::gradients)) {
    ctx.gradients = gradients_.f32();
    ctx.gradients_begin = 0;
    return;
  }
  if (segment == b.last_segment) {
    // The bucket before this one may still be in transit. The one before that had the same slot.
    measure_down_to(std::min(index_of(b) + 2, buckets_.size()));
    kernels::fill(queue_, view(whole_gradients_of(b), b.elems()), 0);
  }
  ctx.gradients = whole_gradients_of(b);
  ctx.gradients_begin = b.begin;
}

void FlatState::close_gradients(std::size_t segment) {
  auto& b = buckets_[bucket_of_.at(segment)];
  if (segment != b.first_segment || sums_ == Sums::no) return;
  closed_ = index_of(b);
  if (comm_->size() > 1) {
    // The loss gradient is already divided by the number of ranks: the sum is the average.
    const auto job = [this, bucket = &b] {
      const std::span whole(whole_gradients_of(*bucket), floats(bucket->elems()));
      auto queue = stream_.queue();
      if (group_.size() > 1) group_.reduce_scatter_parts(queue, whole, wire_);
      if (replicas_.size() == 1) return;
      replicas_.sum(queue, std::span(own_part(*bucket, whole.data()), floats(bucket->own_elems())), wire_);
    };
    const auto timer = phases_->time(Phase::reduce);  // counts if jobs run in this thread
    const double began_ms = phases_->now_ms();
    b.sum = stream_.post(job);
    if (!stream_.threaded()) exposed_ms_ += phases_->now_ms() - began_ms;
  }
  measure_arrived();
}

std::vector<checkpoint::Slab> FlatState::slabs() {
  settle();
  if (on_device()) {
    if (mirror_.bytes() == 0) mirror_ = device::PinnedBuffer(kinds() * floats(own_elems_) * sizeof(float));
    copy_parts(Mirror::fill);
  }
  constexpr const char* kGroups[] = {"model", "momentum", "teacher"};
  std::vector<checkpoint::Slab> out;
  for (const auto& b : buckets_) {
    // Replicas hold the same values: each contributes its share of the part.
    const auto share = [&](int replica) {
      return b.own_begin + comm::balanced_begin(b.own_elems(), replica, replicas_.size());
    };
    for (auto t = b.first_tensor; t < b.last_tensor; ++t) {
      const auto& p = table_->entries()[t];
      const auto begin = std::clamp(share(replicas_.rank()), p.offset, p.offset + p.elems);
      const auto end = std::clamp(share(replicas_.rank() + 1), p.offset, p.offset + p.elems);
      for (std::size_t k = 0; k < kinds(); ++k) {
        out.push_back(
            {kGroups[k], p.name, p.shape, seen(k, b) + (begin - b.own_begin), begin - p.offset, end - p.offset});
      }
    }
  }
  return out;
}

void FlatState::copy_parts(Mirror mirror) {
  for (const auto& b : buckets_) {
    for (std::size_t k = 0; k < kinds(); ++k) {
      float *part = own_of_kind(k, b), *copy = seen(k, b);
      const auto bytes = floats(b.own_elems()) * sizeof(float);
      if (mirror == Mirror::fill)
        device::copy(queue_, part, queue_.space, copy, device::Space::host, bytes);
      else
        device::copy(queue_, copy, device::Space::host, part, queue_.space, bytes);
    }
  }
  queue_.wait();
}

void FlatState::share_loaded() {
  if (on_device()) {
    ensure(mirror_.bytes() > 0, "slabs are filled before they are shared");
    copy_parts(Mirror::put_back);
  }
  for (const auto& b : buckets_) {
    for (std::size_t k = 0; k < kinds(); ++k)
      replicas_.all_gather_parts(queue_, std::span(own_of_kind(k, b), floats(b.own_elems())));
    if (shards(Sharding::parameters)) continue;
    for (const auto* block : {&parameters_, &teacher_})
      if (block->bytes() > 0) group_.all_gather_parts(queue_, std::span(block->f32() + b.begin, floats(b.elems())));
  }
  queue_.wait();
  next_version();
}

std::vector<float> FlatState::whole(float* (FlatState::*part_of)(const Bucket&) const) {
  settle();
  std::vector<float> out(floats(table_->block_elems()));
  for (const auto& b : buckets_) {
    device::copy(queue_, (this->*part_of)(b), queue_.space, out.data() + b.own_begin, device::Space::host,
                 floats(b.own_elems()) * sizeof(float));
    queue_.wait();
    group_.group().all_gather_parts(std::span(out.data() + b.begin, floats(b.elems())));
  }
  return out;
}

std::vector<comm::Traffic> FlatState::traffic() {
  settle();
  std::vector<comm::Traffic> out;
  for (const auto& part : {group_.traffic(), replicas_.traffic(), norms_.traffic()})
    out.insert(out.end(), part.begin(), part.end());
  return out;
}

}  // namespace seer::train
