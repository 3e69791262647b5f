// SPDX-License-Identifier: Apache-2.0
#include "seer/train/learner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/weights.hpp"
#include "seer/comm/signals.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/optimizer.hpp"

namespace seer::train {
namespace {

constexpr const char* kPrototypes = "prototypes.weight";

/// BatchNorm groups are min(world, bn_group_size) consecutive ranks (spec 5.6).
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
                fmt::format("data.global_batch = {} cannot be shared equally by {} ranks", config.data.global_batch,
                            comm.size()),
                "use a batch that is a multiple of the number of ranks")
        .as_agreed();
  }
  return config.data.global_batch / comm.size();
}

/// Floats of a parameter block. Parameters, gradients and momentum of all ranks of a node must fit its memory: Linux
/// would hand it out all the same, and kill the run without a word when it is touched.
std::size_t affordable_floats(const nn::Model& model, const comm::Communicator& comm) {
  const auto floats = static_cast<std::size_t>(model.parameters().block_elems());
  const auto node_ranks = static_cast<std::size_t>(comm.node().size());
  comm::agree(comm, "checking the memory", [&] {
    const double wanted = 3.0 * sizeof(float) * static_cast<double>(floats) * static_cast<double>(node_ranks);
    const auto available = static_cast<double>(device::available_bytes());
    if (available == 0 || wanted <= available) return;
    throw Error(
        ExitCode::device,
        fmt::format("{} parameters with gradients and momentum take {:.1f} GiB for the {} ranks of this node, "
                    "which has {:.1f} GiB left",
                    model.parameters().parameter_count(), wanted / (1 << 30), node_ranks, available / (1 << 30)),
        "use a smaller model.preset or head.dims, or fewer ranks a node");
  });
  return floats;
}

}  // namespace

class Learner::GroupReduction : public nn::StatisticsReduction {
 public:
  GroupReduction(comm::Communicator group, Phases& phases) : group_(std::move(group)), phases_(phases) {}
  void sum(double* values, std::size_t count) override {
    const auto timer = phases_.time(Phase::bn_sync);
    group_.all_reduce(std::span(values, count));
  }
  int size() const { return group_.size(); }

 private:
  comm::Communicator group_;
  Phases& phases_;
};

Learner::Learner(const config::Config& config, const comm::Communicator& comm, Phases& phases)
    : config_(config),
      comm_(&comm),
      phases_(&phases),
      images_(share_of_batch(config, comm)),
      model_(config.model, config.head),
      dnn_(dnn::make_host_backend()),
      parameters_(device::Buffer::floats(affordable_floats(model_, comm))),
      gradients_(device::Buffer::floats(static_cast<std::size_t>(model_.parameters().block_elems()))),
      momenta_(device::Buffer::floats(static_cast<std::size_t>(model_.parameters().block_elems()))),
      buffers_(device::Buffer::floats(static_cast<std::size_t>(model_.buffers().block_elems()))),
      optimizer_(config.optimizer, model_.parameters()) {
  for (const auto& crops : config.crops) crops_ += crops.count;
  const int group = group_size(config, comm);
  if (group > 1) group_ = std::make_unique<GroupReduction>(comm.split_groups(group), phases);
  swav_ = std::make_unique<Swav>(config.swav, comm, images_, crops_, model_.head().prototypes(), model_.head().dim());
  model_.initialize(static_cast<std::uint64_t>(config.data.seed), parameters_.f32(), buffers_.f32());
  if (!config.model.init_from.empty()) {
    comm::agree(comm, "reading model.init_from", [&] {
      if (comm.is_root()) load_initial(checkpoint::resolve(config.model.init_from));
    });
    comm.broadcast(parameters_.data(), parameters_.bytes());
    comm.broadcast(buffers_.data(), buffers_.bytes());
  }
}

Learner::~Learner() = default;

void Learner::load_initial(const std::string& path) {
  const auto weights = checkpoint::read_weights(path);
  std::int64_t fresh = 0;
  const auto fill = [&](const nn::ParameterTable& table, const auto& tensors, float* block) {
    for (const auto& p : table.entries()) {
      const auto found = tensors.find(p.name);
      const bool of_head = p.name.starts_with("head.") || p.name == kPrototypes;
      if (found == tensors.end() && of_head) {
        ++fresh;
        continue;
      }
      if (found == tensors.end() || found->second.shape != p.shape) {
        const auto has = found == tensors.end() ? std::string("no such tensor")
                                                : fmt::format("shape [{}]", fmt::join(found->second.shape, ", "));
        throw Error(ExitCode::file,
                    fmt::format("model.init_from {}: {} has {}, wanted shape [{}]", path, p.name, has,
                                fmt::join(p.shape, ", ")),
                    "use weights of the same model, or change [model] and [head]");
      }
      std::copy(found->second.values.begin(), found->second.values.end(), block + p.offset);
    }
  };
  fill(model_.parameters(), weights.parameters, parameters_.f32());
  fill(model_.buffers(), weights.buffers, buffers_.f32());
  if (fresh > 0) log::info(fmt::format("init_from {}: no head in it, {} tensors start at random", path, fresh));
}

std::string Learner::describe() const {
  return fmt::format("{} parameters ({} in the trunk's and head's {} tensors), BatchNorm groups of {}, {}",
                     model_.parameters().parameter_count(), model_.has_head() ? "all" : "trunk",
                     model_.parameters().entries().size(), group_ ? group_->size() : 1, dnn_->describe());
}

Learner::Outcome Learner::update(const data::Batch& batch, std::int64_t update, double lr, Diagnose diagnose) {
  nn::Context ctx{.dnn = dnn_.get(),
                  .pool = &pool_,
                  .queue = {},
                  .parameters = parameters_.f32(),
                  .gradients = gradients_.f32(),
                  .buffers = buffers_.f32(),
                  .version = version_,
                  .mode = nn::Mode::train,
                  .group = group_.get()};
  const auto& trunk = model_.trunk();
  const auto& head = model_.head();
  const std::int64_t rows = crops_ * images_, k = head.prototypes();

  // Forward: the trunk once per resolution, the head once on all crops.
  const auto features = pool_.tensor({rows, 1, 1, trunk.features()});
  const auto scores = pool_.tensor({rows, 1, 1, k});
  std::vector<nn::RegNet::Pass> passes(batch.groups.size());
  nn::Head::Pass head_pass;
  {
    const auto timer = phases_->time(Phase::forward);
    for (std::size_t g = 0; g < batch.groups.size(); ++g) {
      const auto& group = batch.groups[g];
      trunk.forward(ctx, group.images, passes[g], features->slice(group.first_crop * images_, group.count * images_));
    }
    head.forward(ctx, *features, head_pass, *scores);
  }

  // Codes and loss.
  const auto d_scores = pool_.tensor(scores->shape);
  Swav::Result swav;
  {
    const auto timer = phases_->time(Phase::loss);
    swav = swav_->loss_and_gradient(
        pool_, ctx.queue, update, *scores, *head_pass.embedding, *d_scores,
        [&](device::Tensor embeddings, device::Tensor out) { head.score(ctx, embeddings, out); });
  }

  // Backward.
  {
    const auto timer = phases_->time(Phase::backward);
    std::memset(gradients_.data(), 0, gradients_.bytes());
    const auto d_features = pool_.tensor(features->shape);
    head.backward(ctx, *d_scores, head_pass, *d_features);
    for (std::size_t g = batch.groups.size(); g-- > 0;) {
      const auto& group = batch.groups[g];
      trunk.backward(ctx, d_features->slice(group.first_crop * images_, group.count * images_), passes[g]);
    }
  }

  // One small message: loss, diagnostics, and whether anyone was asked to stop.
  Outcome out;
  {
    const auto timer = phases_->time(Phase::reduce);
    reduce_gradients();
    std::vector<double> sums = {swav.loss, swav.code_entropy / comm_->size(), static_cast<double>(batch.replaced),
                                comm::stop_requested() ? 1.0 : 0.0};
    const std::size_t fixed = sums.size();
    if (diagnose == Diagnose::yes) sums.insert(sums.end(), swav.prediction.begin(), swav.prediction.end());
    comm_->all_reduce(std::span(sums));
    out.loss = sums[0];
    out.code_entropy = sums[1];
    out.bad_images = static_cast<std::int64_t>(sums[2]);
    out.stop = sums[3] > 0;
    for (std::size_t i = fixed; i < sums.size(); ++i) {
      if (sums[i] > 0) out.prediction_entropy -= sums[i] * std::log(sums[i]);
    }
  }

  // Update: all ranks hold the same gradients, so all take the same step.
  const auto timer = phases_->time(Phase::optimizer);
  optimizer_.set_frozen(kPrototypes, update < config_.swav.freeze_prototypes_updates);
  out.grad_norm = optimizer_.measure(ctx.queue, gradients_.f32());
  if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm)) {
    throw Error(
        ExitCode::numerics,
        fmt::format("update {}: loss {} and gradient norm {} are not finite; the parameters are those before it",
                    update, out.loss, out.grad_norm),
        "lower schedule.lr_peak or lengthen the warm-up; the newest checkpoint is intact")
        .as_agreed();
  }
  optimizer_.step(ctx.queue, lr, gradients_.f32(), momenta_.f32(), parameters_.f32());
  kernels::normalize_rows(ctx.queue, head.prototype_matrix(parameters_.f32()));
  ++version_;
  return out;
}

void Learner::reduce_gradients() {
  if (comm_->size() == 1) return;
  // The loss gradient is already divided by the number of ranks: the sum is the average.
  const auto all = static_cast<std::size_t>(model_.parameters().block_elems());
  const auto bucket = std::max<std::size_t>(1, static_cast<std::size_t>(config_.parallel.bucket_bytes) / sizeof(float));
  for (std::size_t at = 0; at < all; at += bucket) {
    comm_->all_reduce(std::span(gradients_.f32() + at, std::min(bucket, all - at)));
  }
}

std::int64_t Learner::begin_of(int rank) const {
  return model_.parameters().block_elems() * rank / comm_->size();
}

std::vector<checkpoint::Slab> Learner::slabs() {
  const std::int64_t begin = begin_of(comm_->rank()), end = begin_of(comm_->rank() + 1);
  std::vector<checkpoint::Slab> out;
  for (const auto& p : model_.parameters().entries()) {
    const auto first = std::clamp(begin - p.offset, std::int64_t{0}, p.elems);
    const auto last = std::clamp(end - p.offset, std::int64_t{0}, p.elems);
    out.push_back({"model", p.name, p.shape, parameters_.f32() + p.offset + first, first, last});
    out.push_back({"momentum", p.name, p.shape, momenta_.f32() + p.offset + first, first, last});
  }
  for (const auto& b : model_.buffers().entries()) {
    out.push_back({"buffers", b.name, b.shape, buffers_.f32() + b.offset, 0, comm_->is_root() ? b.elems : 0});
  }
  return out;
}

void Learner::share_loaded() {
  for (int rank = 0; rank < comm_->size(); ++rank) {
    const auto begin = begin_of(rank), count = begin_of(rank + 1) - begin;
    for (float* block : {parameters_.f32(), momenta_.f32()}) {
      comm_->broadcast(block + begin, static_cast<std::size_t>(count) * sizeof(float), rank);
    }
  }
  comm_->broadcast(buffers_.data(), buffers_.bytes());
  ++version_;
}

void Learner::save_queue(checkpoint::State& state) const {
  state.queue = swav_->gather_queue();
  state.queue_shape = swav_->queue_shape();
  state.queue_filled = swav_->queue_filled();
}

void Learner::restore_queue(const checkpoint::State& state) {
  swav_->restore_queue(state.queue, state.queue_filled, state.update);
}

}  // namespace seer::train
