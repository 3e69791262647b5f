// SPDX-License-Identifier: Apache-2.0
#include "seer/train/flat_state.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"

namespace seer::train {
namespace {

int group_size_of(const config::Parallel& parallel, int ranks) {
  if (parse_sharding(parallel.shard) == Sharding::none) return 1;
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

/// Linux hands out memory that is not there, and kills the run without a word when it is touched: what all ranks of a
/// node are going to hold must fit it now.
void check_memory(const comm::Communicator& comm, std::size_t bytes, std::int64_t parameters) {
  const auto node_ranks = static_cast<double>(comm.node().size());
  comm::agree(comm, "checking the memory", [&] {
    const double wanted = static_cast<double>(bytes) * node_ranks;
    const auto available = static_cast<double>(device::available_bytes());
    if (available == 0 || wanted <= available) return;
    throw Error(ExitCode::device,
                fmt::format("{} parameters with gradients and momentum take {:.1f} GiB for the {} ranks of this node, "
                            "which has {:.1f} GiB left",
                            parameters, wanted / (1 << 30), node_ranks, available / (1 << 30)),
                "use a smaller model.preset or head.dims, fewer ranks a node, or parallel.shard");
  });
}

}  // namespace

Sharding parse_sharding(const std::string& text) {
  constexpr const char* names[] = {"none", "optimizer", "gradients", "parameters"};
  for (int i = 0; i < 4; ++i) {
    if (text == names[i]) return static_cast<Sharding>(i);
  }
  throw Error(ExitCode::input, fmt::format("parallel.shard = \"{}\"", text),
              "use \"none\", \"optimizer\", \"gradients\" or \"parameters\"")
      .as_agreed();
}

FlatState::FlatState(const config::Config& config, const comm::Communicator& comm, const nn::Model& model,
                     device::Pool& pool, Phases& phases)
    : comm_(&comm),
      table_(&model.parameters()),
      pool_(&pool),
      phases_(&phases),
      sharding_(parse_sharding(config.parallel.shard)),
      prototypes_begin_(model.head().prototypes_begin()),
      prototypes_(model.head().prototypes()),
      prototype_dim_(model.head().dim()),
      group_(comm.split_groups(group_size_of(config.parallel, comm.size()))),
      replicas_(comm.split(comm.rank() % group_.size())),
      norms_(group_.split(0)),
      optimizer_(config.optimizer, *table_),
      stream_(config.parallel.overlap && comm.size() > 1) {
  if (group_.size() == 1) sharding_ = Sharding::none;
  cut(model, config.parallel.bucket_bytes);
  const auto whole = table_->block_elems();
  const auto parameters = shards(Sharding::parameters) ? own_elems_ : whole;
  const auto gradients = shards(Sharding::gradients) ? 0 : whole;
  const auto own_gradients = group_.size() > 1 ? own_elems_ : 0;
  check_memory(comm, floats(parameters + gradients + own_gradients + own_elems_) * sizeof(float),
               table_->parameter_count());
  parameters_ = device::Buffer::floats(floats(parameters));
  gradients_ = device::Buffer::floats(floats(gradients));
  own_gradients_ = device::Buffer::floats(floats(own_gradients));
  momenta_ = device::Buffer::floats(floats(own_elems_));
}

/// Whole segments until a bucket has its bytes; the head, whose parameters are needed at once, is one of its own.
void FlatState::cut(const nn::Model& model, std::int64_t bucket_bytes) {
  auto begins = model.trunk().segment_begins();
  const auto trunk_segments = model.trunk().segments();
  begins.push_back(table_->block_elems());
  std::int64_t begin = 0;
  std::size_t first = 0;
  for (std::size_t s = 0; s <= trunk_segments; ++s) {
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
    b.part = Optimizer::part(*table_, b.own_begin, b.own_end);
    own_elems_ += b.own_elems();
    buckets_.push_back(std::move(b));
    begin = end;
    first = s + 1;
  }
}

float* FlatState::own_parameters(const Bucket& b) {
  return parameters_.f32() + (shards(Sharding::parameters) ? b.packed : b.own_begin);
}
float* FlatState::own_gradients(const Bucket& b) {
  return group_.size() > 1 ? own_gradients_.f32() + b.packed : gradients_.f32() + b.own_begin;
}

void FlatState::fill(const std::function<void(const nn::Parameter&, float* values)>& tensor) {
  settle();
  const auto& tensors = table_->entries();
  std::vector<float> whole;
  for (auto& b : buckets_) {
    whole.assign(floats(b.elems()), 0.0F);
    for (const auto& p : tensors) {
      if (p.offset >= b.begin && p.offset < b.end) tensor(p, whole.data() + (p.offset - b.begin));
    }
    if (shards(Sharding::parameters)) {
      std::copy_n(whole.data() + (b.own_begin - b.begin), b.own_elems(), own_parameters(b));
    } else {
      std::copy(whole.begin(), whole.end(), parameters_.f32() + b.begin);
    }
  }
  ++version_;
}

void FlatState::begin_update() {
  exposed_ms_ = 0;
  if (gradients_.bytes() > 0) std::memset(gradients_.data(), 0, gradients_.bytes());
}

void FlatState::wait(Phase phase, comm::Stream::Ticket ticket) {
  if (ticket == 0) return;
  const auto timer = phases_->time(phase);
  const Clock clock;
  stream_.wait(ticket);
  exposed_ms_ += clock.ms();
}

/// Parameters mode: starts to collect a bucket.
void FlatState::fetch(Bucket& b) {
  if (b.gathered) return;
  b.gathered = pool_->tensor({1, 1, 1, b.elems()});
  float* whole = b.gathered->f32();
  std::copy_n(own_parameters(b), b.own_elems(), whole + (b.own_begin - b.begin));
  b.gather = stream_.post([this, whole, n = floats(b.elems())] { group_.all_gather_parts(std::span(whole, n)); });
}

void FlatState::need(nn::Context& ctx, std::size_t segment, Direction direction) {
  auto& b = buckets_[bucket_of_.at(segment)];
  if (!shards(Sharding::parameters)) {
    wait(Phase::gather, std::exchange(b.gather, 0));
    ctx.parameters = parameters_.f32();
    ctx.parameters_begin = 0;
    ctx.version = version_;
    return;
  }
  fetch(b);
  const auto next = static_cast<std::ptrdiff_t>(&b - buckets_.data()) + static_cast<int>(direction);
  if (next >= 0 && next < std::ssize(buckets_)) fetch(buckets_[static_cast<std::size_t>(next)]);
  wait(Phase::gather, std::exchange(b.gather, 0));
  ctx.parameters = b.gathered->f32();
  ctx.parameters_begin = b.begin;
  ctx.version = 0;  // the same memory holds one bucket and then another
}

void FlatState::drop(std::size_t segment, Direction direction) {
  if (!shards(Sharding::parameters)) return;
  auto& b = buckets_[bucket_of_.at(segment)];
  if (segment == (direction == Direction::forward ? b.last_segment : b.first_segment)) b.gathered.release();
}

void FlatState::open_gradients(nn::Context& ctx, std::size_t segment) {
  auto& b = buckets_[bucket_of_.at(segment)];
  if (!shards(Sharding::gradients)) {
    ctx.gradients = gradients_.f32();
    ctx.gradients_begin = 0;
    return;
  }
  if (segment == b.last_segment) {
    // The bucket before this one may still be on its way; the one before that must be done.
    const auto index = static_cast<std::size_t>(&b - buckets_.data());
    if (index + 2 < buckets_.size()) {
      auto& earlier = buckets_[index + 2];
      wait(Phase::reduce, std::exchange(earlier.sum, 0));
      earlier.gradients.release();
    }
    b.gradients = pool_->tensor({1, 1, 1, b.elems()});
    std::memset(b.gradients->data, 0, floats(b.elems()) * sizeof(float));
  }
  ctx.gradients = b.gradients->f32();
  ctx.gradients_begin = b.begin;
}

void FlatState::close_gradients(std::size_t segment) {
  auto& b = buckets_[bucket_of_.at(segment)];
  if (segment != b.first_segment || comm_->size() == 1) return;
  const float* whole = b.gradients ? b.gradients->f32() : gradients_.f32() + b.begin;
  // The loss gradient is already divided by the number of ranks: the sum is the average.
  const auto job = [this, whole, own = own_gradients(b), n = floats(b.elems()), mine = floats(b.own_elems())] {
    if (group_.size() > 1) group_.reduce_scatter(std::span(whole, n), std::span(own, mine));
    if (replicas_.size() > 1) replicas_.all_reduce(std::span(own, mine));
  };
  const auto timer = phases_->time(Phase::reduce);  // counts where jobs run in this thread
  const Clock clock;
  b.sum = stream_.post(job);
  if (!stream_.threaded()) exposed_ms_ += clock.ms();
}

double FlatState::reduce() {
  for (auto b = buckets_.rbegin(); b != buckets_.rend(); ++b) {
    wait(Phase::reduce, std::exchange(b->sum, 0));
    b->gradients.release();
    b->gathered.release();
  }
  device::Queue queue;
  optimizer_.forget_squares();
  for (auto& b : buckets_) optimizer_.measure(queue, b.part, own_gradients(b), own_parameters(b));
  if (norms_.size() > 1) {
    const auto timer = phases_->time(Phase::reduce);
    norms_.all_reduce(optimizer_.squares());
  }
  return optimizer_.gradient_norm();
}

void FlatState::step(double lr) {
  device::Queue queue;
  for (auto b = buckets_.rbegin(); b != buckets_.rend(); ++b) {  // the prototypes, which need one more touch, first
    optimizer_.step(queue, b->part, lr, own_gradients(*b), own_momenta(*b), own_parameters(*b));
    if (group_.size() == 1 || shards(Sharding::parameters)) continue;
    b->gather = stream_.post([this, whole = parameters_.f32() + b->begin, n = floats(b->elems())] {
      group_.all_gather_parts(std::span(whole, n));
    });
  }
  finish_update();
}

void FlatState::skip() {
  finish_update();
}

void FlatState::finish_update() {
  normalize_prototypes();
  ++version_;
  const double busy_ms = stream_.take_busy_ms();
  phases_->add_hidden(std::max(0.0, busy_ms - exposed_ms_));
}

/// Every row to length one (spec 2). A sharded row lies on two ranks: its bucket is gathered, and each owner keeps its
/// part of the result.
void FlatState::normalize_prototypes() {
  device::Queue queue;
  auto& b = buckets_.back();
  if (shards(Sharding::parameters)) fetch(b);
  wait(Phase::gather, std::exchange(b.gather, 0));
  float* whole = shards(Sharding::parameters) ? b.gathered->f32() : parameters_.f32() + b.begin;
  kernels::normalize_rows(
      queue, {.data = whole + (prototypes_begin_ - b.begin), .shape = {prototypes_, 1, 1, prototype_dim_}});
  if (!shards(Sharding::parameters)) return;
  std::copy_n(whole + (b.own_begin - b.begin), b.own_elems(), own_parameters(b));
  b.gathered.release();
}

void FlatState::settle() {
  stream_.wait_all();
  for (auto& b : buckets_) b.gather = b.sum = 0;
}

std::vector<checkpoint::Slab> FlatState::slabs() {
  settle();
  std::vector<checkpoint::Slab> out;
  for (const auto& p : table_->entries()) {
    for (auto& b : buckets_) {
      if (p.offset < b.begin || p.offset >= b.end) continue;
      // Replicas hold the same: each gives its share of the part.
      const auto share = [&](int replica) {
        return b.own_begin + comm::balanced_begin(b.own_elems(), replica, replicas_.size());
      };
      const auto begin = std::clamp(share(replicas_.rank()), p.offset, p.offset + p.elems);
      const auto end = std::clamp(share(replicas_.rank() + 1), p.offset, p.offset + p.elems);
      const auto first = begin - p.offset, last = end - p.offset;
      out.push_back({"model", p.name, p.shape, own_parameters(b) + (begin - b.own_begin), first, last});
      out.push_back({"momentum", p.name, p.shape, own_momenta(b) + (begin - b.own_begin), first, last});
    }
  }
  return out;
}

void FlatState::share_loaded() {
  for (auto& b : buckets_) {
    for (float* own : {own_parameters(b), own_momenta(b)}) {
      replicas_.all_gather_parts(std::span(own, floats(b.own_elems())));
    }
    if (!shards(Sharding::parameters))
      group_.all_gather_parts(std::span(parameters_.f32() + b.begin, floats(b.elems())));
  }
  ++version_;
}

std::vector<float> FlatState::whole(float* (FlatState::*own)(const Bucket&)) {
  settle();
  std::vector<float> out(floats(table_->block_elems()));
  for (auto& b : buckets_) {
    std::copy_n((this->*own)(b), b.own_elems(), out.data() + b.own_begin);
    group_.all_gather_parts(std::span(out.data() + b.begin, floats(b.elems())));
  }
  return out;
}

std::vector<float> FlatState::whole_parameters() {
  return whole(&FlatState::own_parameters);
}
std::vector<float> FlatState::whole_gradients() {
  return whole(&FlatState::own_gradients);
}

}  // namespace seer::train
