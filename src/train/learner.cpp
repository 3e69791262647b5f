// SPDX-License-Identifier: Apache-2.0
#include "seer/train/learner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "seer/base/error.hpp"

namespace seer::train {
namespace {

/// BatchNorm groups are min(world, bn_group_size) consecutive ranks (method.md 5.4).
int group_size(const config::Config& config, const comm::Communicator& comm) {
  const auto wanted = std::min<std::int64_t>(config.parallel.bn_group_size, comm.size());
  if (comm.size() % wanted != 0) {
    throw Error(ExitCode::input,
                fmt::format("parallel.bn_group_size = {} does not divide the {} ranks", wanted, comm.size()),
                "use a group size that divides the number of ranks, or another number of ranks")
        .as_agreed();
  }
  return static_cast<int>(wanted);
}

std::int64_t share_of_batch(const config::Config& config, const comm::Communicator& comm) {
  if (config.data.global_batch % comm.size() != 0) {
    throw Error(ExitCode::input,
                fmt::format("data.global_batch = {} cannot be divided equally among {} ranks", config.data.global_batch,
                            comm.size()),
                "use a batch that is a multiple of the number of ranks")
        .as_agreed();
  }
  return config.data.global_batch / comm.size();
}

}  // namespace

Learner::Learner(const config::Config& config, const comm::Communicator& comm, Phases& phases, MemoryPlan plan,
                 std::shared_ptr<dnn::Backend> backend)
    : config_(config),
      comm_(&comm),
      phases_(&phases),
      images_(share_of_batch(config, comm)),
      model_(method::make_model(config)),
      begins_(model_.segment_begins()),
      plan_(std::move(plan)),
      dnn_(backend != nullptr ? std::move(backend) : make_backend(config, comm)),
      own_queue_(make_queue(config, comm)),
      queue_(own_queue_ != nullptr ? own_queue_->queue() : device::Queue::of(comm.ledger())),
      pool_(queue_.space),
      rounded_(queue_.space),
      state_(config, comm, model_, phases, queue_, method::kind(config).teacher_heads >= 0 || method::averages(config)),
      loss_scale_(config.precision),
      probe_(model_, state_.most_gradient(), queue_),
      faults_(config.faults, comm),
      world_(comm, queue_),
      length_(config.schedule.total_updates) {
  if (comm.size() == 1) state_.use_gradient_squares(probe_.squares());
  for (const auto& crops : config.crops) crops_ += crops.count;
  const int group = group_size(config, comm);
  if (group > 1) group_.emplace(comm::BlockCommunicator(comm.split_groups(group).named("bn"), queue_), phases, probe_);
  method_ = method::kind(config).make({config_, world_, model_.heads(), queue_, images_, crops_});
  for (const auto& keep : plan_.keep) passes_.trunk.push_back(model_.trunk().make_pass({.keep = keep}));
  for (const auto& head : model_.heads()) passes_.heads.push_back(head->make_pass());
  const auto count = static_cast<std::size_t>(model_.buffers().block_elems());
  const int teacher_heads = method::kind(config).teacher_heads;
  for (int i = 0; i < (teacher_heads >= 0 || method::averages(config) ? 2 : 1); ++i)
    statistics_.push_back({{count, queue_.space}, device::Buffer::floats(count, queue_.space)});
  if (teacher_heads >= 0) {
    teacher_passes_.trunk.push_back(model_.trunk().make_pass());
    for (const auto& head : std::span(model_.heads()).first(static_cast<std::size_t>(teacher_heads)))
      teacher_passes_.heads.push_back(head->make_pass());
  }
  if (comm.ledger() != nullptr) return;  // planned: no values
  if (own_queue_ != nullptr) phases.measure_on(queue_);
  pool_.reserve(static_cast<std::size_t>(plan_.footprint.activations));
  const auto seed = static_cast<std::uint64_t>(config.data.seed);
  const auto at_random = [seed](const nn::Parameter& p, float* values) { nn::initialize(p, seed, values); };
  fill(at_random, at_random);
}

Learner::~Learner() {
  if (own_queue_ != nullptr) phases_->measure_on({});  // its events belong to the queue, which ends now
}

std::string Learner::describe() const {
  return fmt::format("{} parameters in {} tensors, BatchNorm groups of {}, {} in {}{}",
                     model_.parameters().parameter_count(), model_.parameters().entries().size(),
                     group_ ? group_->size() : 1, dnn_->describe(), config_.precision.compute,
                     loss_scale_.dynamic() ? " with dynamic loss scaling" : "") +
         (own_queue_ != nullptr ? ", on the device" : "");
}

Footprint Learner::footprint() const {
  Footprint out;
  state_.add_to(out);
  out.activations = static_cast<std::int64_t>(pool_.held_bytes());
  out.workspaces = static_cast<std::int64_t>(dnn_->held_bytes() + rounded_.bytes());
  out.communication += comm_->staging_bytes();
  auto other = method_->bytes() + upload_.bytes();
  for (const auto& statistics : statistics_) other += statistics.values.bytes() + statistics.kept.bytes();
  out.other = static_cast<std::int64_t>(other);
  return out;
}

const float* Learner::buffers(Values which) {
  auto& values = which == Values::tested ? tested_statistics() : statistics_.front().values;
  values.fetch(queue_);
  queue_.wait();
  return values.on_host();
}

void Learner::begin_test() {
  if ((group_ ? group_->size() : 1) == comm_->size()) return;  // all ranks have the same
  auto& values = tested_statistics();
  const auto* const own = buffers(Values::tested);
  own_statistics_.assign(own, own + values.size());
  comm_->broadcast(values.on_host(), values.bytes());
  values.send(queue_);
  queue_.wait();
}

void Learner::end_test() {
  if (own_statistics_.empty()) return;
  auto& values = tested_statistics();
  std::ranges::copy(own_statistics_, values.on_host());
  own_statistics_.clear();
  values.send(queue_);
  queue_.wait();
}

void Learner::fill(const Fill& parameter, const Fill& buffer) {
  state_.fill(parameter);
  std::vector<float> values(static_cast<std::size_t>(model_.buffers().block_elems()));
  for (const auto& b : model_.buffers().entries()) buffer(b, values.data() + b.offset);
  for (auto& statistics : statistics_) {
    std::ranges::copy(values, statistics.values.on_host());
    statistics.values.send(queue_);
  }
  queue_.wait();
}

std::vector<float> Learner::gradients() {
  auto out = state_.whole_gradients();
  for (auto& g : out) g = static_cast<float>(static_cast<double>(g) / last_scale_);
  return out;
}

std::vector<comm::Traffic> Learner::traffic() {
  auto out = state_.traffic();
  if (group_)
    for (const auto& t : group_->traffic()) out.push_back(t);
  for (const auto& t : comm_->traffic()) out.push_back(t);
  return out;
}

std::vector<checkpoint::Slab> Learner::slabs() {
  auto out = state_.slabs();
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    auto& values = statistics_[i].values;
    values.fetch(queue_);
    queue_.wait();
    for (const auto& b : model_.buffers().entries()) {
      out.push_back({i == 0 ? "buffers" : "teacher_buffers", b.name, b.shape, values.on_host() + b.offset, 0,
                     comm_->is_root() ? b.elems : 0});
    }
  }
  return out;
}

void Learner::share_loaded() {
  state_.share_loaded();
  for (auto& statistics : statistics_) {
    comm_->broadcast(statistics.values.on_host(), statistics.values.bytes());
    statistics.values.send(queue_);
  }
  queue_.wait();
}

}  // namespace seer::train
