// SPDX-License-Identifier: Apache-2.0
#include "seer/train/learner.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/progress.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/train/compute.hpp"
#include "seer/weights/weights.hpp"

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
                fmt::format("data.global_batch = {} cannot be shared equally by {} ranks", config.data.global_batch,
                            comm.size()),
                "use a batch that is a multiple of the number of ranks")
        .as_agreed();
  }
  return config.data.global_batch / comm.size();
}

/// "pixels of crop 2 of image 4711" if the batch itself is not finite, else "".
std::string pixels_not_finite(device::Queue& queue, const data::Batch& batch) {
  for (const auto& group : batch.groups) {
    device::Mirrored<std::int64_t> place(1, queue.space);
    kernels::first_beyond(queue, group.images.f32(), group.images.elems(), std::numeric_limits<float>::max(),
                          place.on_queue());
    place.fetch(queue);
    queue.wait();
    const auto at = *place.on_host();
    if (at < 0) continue;
    const auto row = at / (group.size * group.size * 3), image = row % batch.images;
    const auto index = static_cast<std::size_t>(image);
    return fmt::format("the pixels of crop {} of image {}", group.first_crop + row / batch.images,
                       index < batch.positions.size() ? batch.positions[index] : index);
  }
  return "";
}

}  // namespace

class Learner::GroupReduction : public nn::StatisticsReduction {
 public:
  GroupReduction(comm::BlockCommunicator group, Phases& phases, Probe& probe)
      : group_(std::move(group)), phases_(phases), probe_(probe) {}
  void sum(device::Queue& queue, double* values, std::size_t count) override {
    probe_.statistics(queue, std::span(values, count));
    const auto timer = phases_.time(Phase::bn_sync);
    group_.all_reduce(queue, std::span(values, count));
  }
  int size() const override { return group_.size(); }
  std::vector<comm::Traffic> traffic() const { return group_.traffic(); }

 private:
  comm::BlockCommunicator group_;
  Phases& phases_;
  Probe& probe_;
};

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
      state_(config, comm, model_, phases, queue_, method::kind(config).teacher_heads >= 0),
      loss_scale_(config.precision),
      buffers_(static_cast<std::size_t>(model_.buffers().block_elems()), queue_.space),
      teacher_buffers_(method::kind(config).teacher_heads >= 0 ? buffers_.size() : 0, queue_.space),
      kept_buffers_(buffers_.bytes(), queue_.space),
      kept_teacher_buffers_(teacher_buffers_.bytes(), queue_.space),
      probe_(model_, state_.most_gradient(), queue_),
      faults_(config.faults, comm),
      world_(comm::BlockCommunicator::over(comm, queue_)),
      length_(config.schedule.total_updates) {
  for (const auto& crops : config.crops) crops_ += crops.count;
  const int group = group_size(config, comm);
  if (group > 1)
    group_ = std::make_unique<GroupReduction>(comm::BlockCommunicator(comm.split_groups(group).named("bn"), queue_),
                                              phases, probe_);
  method_ = method::kind(config).make({config_, world_, model_.heads(), queue_, images_, crops_});
  for (const auto& keep : plan_.keep) passes_.push_back(model_.trunk().make_pass({.keep = keep}));
  for (const auto& head : model_.heads()) head_passes_.push_back(head->make_pass());
  if (const int heads = method::kind(config).teacher_heads; heads >= 0) {
    teacher_passes_.push_back(model_.trunk().make_pass());
    for (int h = 0; h < heads; ++h)
      teacher_passes_.push_back(model_.heads().at(static_cast<std::size_t>(h))->make_pass());
  }
  if (comm.ledger() != nullptr) return;  // planned: no values
  if (own_queue_ != nullptr) phases.measure_on(queue_);
  pool_.reserve(static_cast<std::size_t>(plan_.footprint.activations));
  const auto seed = static_cast<std::uint64_t>(config.data.seed);
  state_.fill([seed](const nn::Parameter& p, float* values) { nn::initialize(p, seed, values); });
  std::vector<float> buffers(static_cast<std::size_t>(model_.buffers().block_elems()));
  nn::initialize(model_.buffers(), seed, buffers.data());
  set_buffers(buffers);
}

Learner::~Learner() {
  if (own_queue_ != nullptr) phases_->measure_on({});  // its events belong to the queue, which ends now
}

/// The root reads the file and broadcasts every tensor. Head tensors that are not in the file start at random.
void Learner::start_from(const std::string& path) {
  weights::Weights weights;
  const auto of_trunk = nn::trunk_kind(config_.model).roots;
  const auto find = [&](const nn::Parameter& p, const auto& tensors) -> const weights::HostTensor* {
    const auto found = tensors.find(p.name);
    const bool of_head = std::ranges::find(of_trunk, p.name.substr(0, p.name.find('.'))) == of_trunk.end();
    if (found == tensors.end() && of_head) return nullptr;
    if (found == tensors.end() || found->second.shape != p.shape) {
      const auto has = found == tensors.end() ? std::string("no such tensor")
                                              : fmt::format("shape [{}]", fmt::join(found->second.shape, ", "));
      throw Error(
          ExitCode::file,
          fmt::format("model.init_from {}: {} has {}, wanted shape [{}]", path, p.name, has, fmt::join(p.shape, ", ")),
          "use weights of the same model, or change [model] and [head]");
    }
    return &found->second;
  };
  std::int64_t fresh = 0;
  comm::agree(*comm_, "reading model.init_from", [&] {
    if (!comm_->is_root()) return;
    weights = weights::read_weights(checkpoint::resolve(path));
    for (const auto& p : model_.parameters().entries()) fresh += find(p, weights.parameters) == nullptr ? 1 : 0;
    for (const auto& b : model_.buffers().entries()) fresh += find(b, weights.buffers) == nullptr ? 1 : 0;
  });
  const auto seed = static_cast<std::uint64_t>(config_.data.seed);
  const auto give = [&](const nn::Parameter& p, const auto& tensors, float* values) {
    nn::initialize(p, seed, values);
    if (const auto* tensor = comm_->is_root() ? find(p, tensors) : nullptr) {
      std::copy(tensor->values.begin(), tensor->values.end(), values);
    }
    comm_->broadcast(values, static_cast<std::size_t>(p.elems) * sizeof(float));
  };
  state_.fill([&](const nn::Parameter& p, float* values) { give(p, weights.parameters, values); });
  std::vector<float> buffers(static_cast<std::size_t>(model_.buffers().block_elems()));
  for (const auto& b : model_.buffers().entries()) give(b, weights.buffers, buffers.data() + b.offset);
  set_buffers(buffers);
  if (fresh > 0) log::info(fmt::format("init_from {}: no head in it, {} tensors start at random", path, fresh));
}

std::string Learner::describe() const {
  return fmt::format("{} parameters in {} tensors, BatchNorm groups of {}, {} in {}{}",
                     model_.parameters().parameter_count(), model_.parameters().entries().size(),
                     group_ ? group_->size() : 1, dnn_->describe(), config_.precision.compute,
                     loss_scale_.dynamic() ? " with dynamic loss scaling" : "") +
         (own_queue_ != nullptr ? ", on the device" : "");
}

/// Segment by segment: a trunk segment for all resolutions, then each head segment once on all crops. need() and drop()
/// let parameters come and go.
void Learner::forward(nn::Context& ctx, const data::Batch& batch, device::Tensor features) {
  constexpr auto kDirection = FlatState::Direction::forward;
  const auto& trunk = model_.trunk();
  for (std::size_t s = 0; s < state_.segments(); ++s) {
    state_.need(ctx, s, kDirection);
    probe_.enter(Probe::Direction::forward, s);
    if (s < trunk.segments()) {
      for (std::size_t g = 0; g < batch.groups.size(); ++g) {
        const auto& group = batch.groups[g];
        trunk.forward(ctx, s, group.images, *passes_[g],
                      features.slice(group.first_crop * images_, group.count * images_));
        comm::tell_progress();
      }
    } else {
      const auto [h, segment] = model_.head_segment(s);
      model_.heads()[h]->forward(ctx, segment, h == 0 ? features : outputs_[h - 1], *head_passes_[h], outputs_[h]);
    }
    const bool last = s + 1 == state_.segments();  // its parameters stay for the loss and the backward pass
    if (!last) state_.drop(s, kDirection);
  }
}

/// The same in reverse. A segment's gradients are complete when all resolutions have passed it; their sum over ranks
/// then runs beside the segments below.
void Learner::backward(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor d_output,
                       device::Shape features) {
  constexpr auto kDirection = FlatState::Direction::backward;
  const auto& trunk = model_.trunk();
  const auto d_features = pool_.tensor(features);
  d_outputs_.clear();
  for (std::size_t h = 0; h + 1 < outputs_.size(); ++h) {
    loans_.push_back(pool_.tensor(outputs_[h].shape));
    d_outputs_.push_back(*loans_.back());
  }
  d_outputs_.push_back(d_output);
  for (std::size_t s = state_.segments(); s-- > 0;) {
    state_.need(ctx, s, kDirection);
    state_.open_gradients(ctx, s);
    probe_.enter(Probe::Direction::backward, s);
    if (s >= trunk.segments()) {
      const auto [h, segment] = model_.head_segment(s);
      model_.heads()[h]->backward(ctx, segment, d_outputs_[h], *head_passes_[h],
                                  h == 0 ? *d_features : d_outputs_[h - 1]);
    } else {
      for (std::size_t g = batch.groups.size(); g-- > 0;) {
        const auto& group = batch.groups[g];
        trunk.backward(ctx, s, d_features->slice(group.first_crop * images_, group.count * images_), *passes_[g], {});
        comm::tell_progress();
      }
    }
    state_.drop(s, kDirection);
    float* own = ctx.grad(begins_[s]);
    if (s == state_.segments() / 2) faults_.strike(queue_, update + 1, probe_.second_pass(), own);
    probe_.gradients(queue_, s, own);
    state_.close_gradients(s);
  }
}

device::Tensor Learner::teach(nn::Context ctx, const data::Batch& batch) {
  if (teacher_passes_.empty()) return {};
  const auto timer = phases_->time(Phase::forward);
  const auto& group = batch.groups.front();
  const auto& trunk = model_.trunk();
  const std::int64_t rows = group.count * images_;
  ctx.buffers = teacher_buffers_.on_queue();
  ctx.mode = nn::Mode::observe;
  auto& loans = teacher_loans_;
  state_.use(FlatState::Which::teacher);
  loans.push_back(pool_.tensor({rows, 1, 1, trunk.width()}));
  for (std::size_t h = 0; h + 1 < teacher_passes_.size(); ++h) {
    loans.push_back(pool_.tensor({rows, 1, 1, model_.heads()[h]->width()}));
  }
  std::size_t segment = 0;
  const auto run = [&](const nn::Chain& chain, device::Tensor in, nn::Pass& pass, device::Tensor out) {
    for (std::size_t s = 0; s < chain.segments(); ++s, ++segment) {
      state_.need(ctx, segment, FlatState::Direction::forward);
      probe_.enter(Probe::Direction::forward, segment);
      chain.forward(ctx, s, in, pass, out);
      state_.drop(segment, FlatState::Direction::forward);
      comm::tell_progress();
    }
  };
  run(trunk, group.images, *teacher_passes_[0], *loans[0]);
  for (std::size_t h = 0; h + 1 < teacher_passes_.size(); ++h) {
    run(*model_.heads()[h], *loans[h], *teacher_passes_[h + 1], *loans[h + 1]);
  }
  state_.use(FlatState::Which::student);
  return *loans.back();
}

const method::Share& Learner::passes(nn::Context& ctx, const data::Batch& batch, std::int64_t update,
                                     device::Tensor teacher, FlatState::Sums sums) {
  const std::int64_t rows = crops_ * images_;
  const auto features = pool_.tensor({rows, 1, 1, model_.trunk().width()});
  outputs_.clear();
  for (const auto& head : model_.heads()) {
    loans_.push_back(pool_.tensor({rows, 1, 1, head->width()}));
    outputs_.push_back(*loans_.back());
  }
  state_.begin_update(sums);
  {
    const auto timer = phases_->time(Phase::forward);
    forward(ctx, batch, *features);
    probe_.output(queue_, outputs_.back());
  }
  const auto d_output = pool_.tensor(outputs_.back().shape);
  const method::Share* share = nullptr;
  {
    const auto timer = phases_->time(Phase::loss);
    share = &method_->loss({ctx, batch, update, loss_scale_.value(), outputs_, teacher, *d_output});
    probe_.loss(share->loss);
  }
  const auto timer = phases_->time(Phase::backward);
  backward(ctx, batch, update, *d_output, features->shape);
  loans_.clear();
  return *share;
}

Learner::Outcome Learner::update(const data::Batch& given, std::int64_t update, double lr, Figures figures) {
  const auto& batch = upload_.bring(queue_, given);
  nn::Context ctx{.dnn = dnn_.get(),
                  .pool = &pool_,
                  .queue = queue_,
                  .buffers = buffers_.on_queue(),
                  .compute = compute_type(config_.precision),
                  .mode = nn::Mode::train,
                  .group = group_.get()};
  kernels::copy(queue_, buffers_.view(), kept_buffers_.view());
  const bool taught = !teacher_passes_.empty();
  if (taught) kernels::copy(queue_, teacher_buffers_.view(), kept_teacher_buffers_.view());
  const auto teacher = teach(ctx, batch);  // once: its output is the same for both passes
  const bool twice = config_.guard.replay_every > 0 && (update + 1) % config_.guard.replay_every == 0;
  probe_.begin(twice);
  if (twice) {
    passes(ctx, batch, update, teacher, FlatState::Sums::no);
    kernels::copy(queue_, kept_buffers_.view(), buffers_.view());
    probe_.begin_second_pass();
  }
  const auto& share = passes(ctx, batch, update, teacher, FlatState::Sums::yes);
  teacher_loans_.clear();

  // All ranks take the update, or none does.
  Outcome out = agree_on_outcome(batch, share, figures);
  const auto timer = phases_->time(Phase::optimizer);
  state_.optimizer().set_update(update);
  out.loss_scale = last_scale_ = loss_scale_.value();
  state_.optimizer().set_gradient_scale(last_scale_);
  // Sums that are certainly finite may still be in progress: step() updates each bucket when its sum arrives.
  if (!out.sums_are_safe) out.grad_norm = state_.gradient_norm();
  judge(out, batch, share, twice);
  if (out.skipped) {
    out.grad_norm = state_.gradient_norm();
    state_.skip();
    kernels::copy(queue_, kept_buffers_.view(), buffers_.view());
    if (taught) kernels::copy(queue_, kept_teacher_buffers_.view(), teacher_buffers_.view());
  } else {
    out.grad_norm = state_.step(lr);
    method_->accept();
    if (taught) state_.follow(method_->teacher_momentum(update, length_));
  }
  loss_scale_.observe(std::isfinite(out.loss) && std::isfinite(out.grad_norm));
  return out;
}

/// Decides whether to take the step, and if not, finds the origin. All ranks decide alike.
void Learner::judge(Outcome& out, const data::Batch& batch, const method::Share& share, bool twice) {
  std::vector<Culprit> culprits;
  if (twice) {
    culprits = earliest(*comm_, probe_.difference(), batch.positions);
    if (!culprits.empty()) out.cause = Cause::replay;
  }
  if (out.cause == Cause::none && !(std::isfinite(out.loss) && std::isfinite(out.grad_norm))) {
    const bool scaled = loss_scale_.dynamic() && out.loss_scale > 1 && std::isfinite(out.loss);
    out.cause = scaled ? Cause::loss_scale : Cause::not_finite;
    auto mine = probe_.not_finite();
    if (probe_.before_loss()) {
      if (const auto pixels = pixels_not_finite(queue_, batch); !pixels.empty()) mine->what = pixels;
    }
    culprits = earliest(*comm_, mine, batch.positions);
    if (culprits.empty()) {  // finite on every rank, but the sum is not
      culprits.push_back({-1, "", "the sum over ranks of the gradient of " + state_.optimizer().not_finite(), {}});
    }
  }
  if (out.cause == Cause::none && refused_ && refused_(out.loss)) {
    out.cause = Cause::outlier;
    const bool largest = share.loss == comm_->all_reduce(share.loss, comm::Op::max);
    culprits = earliest(
        *comm_, largest ? std::optional(Finding{0, "the loss, of which it has the largest share"}) : std::nullopt,
        batch.positions);
  }
  out.skipped = out.cause != Cause::none;
  out.culprits = std::move(culprits);
}

/// One small all-reduce: loss, the figures' sums, whether any rank was asked to stop or to write a checkpoint, and
/// whether all gradients are small enough for their sums.
Learner::Outcome Learner::agree_on_outcome(const data::Batch& batch, const method::Share& share, Figures figures) {
  {
    const auto timer = phases_->time(Phase::backward);  // a device has not finished it yet
    probe_.settle(queue_);
  }
  const auto timer = phases_->time(Phase::reduce);
  auto& sums = sums_;
  const auto asked = asked_();
  sums.assign({share.loss, static_cast<double>(batch.replaced), asked.stop ? 1.0 : 0.0, asked.checkpoint ? 1.0 : 0.0,
               probe_.sums_are_safe() ? 0.0 : 1.0});
  const std::size_t fixed = sums.size();
  if (figures == Figures::yes) sums.insert(sums.end(), share.sums.begin(), share.sums.end());
  comm_->all_reduce(std::span(sums));
  Outcome out;
  out.loss = sums[0];
  out.bad_images = static_cast<std::int64_t>(sums[1]);
  out.stop = sums[2] > 0;
  out.checkpoint = sums[3] > 0;
  out.sums_are_safe = sums[4] == 0;
  if (figures == Figures::yes) out.figures = method_->figures(std::span(sums).subspan(fixed));
  return out;
}

Footprint Learner::footprint() const {
  Footprint out;
  state_.add_to(out);
  out.activations = static_cast<std::int64_t>(pool_.held_bytes());
  out.workspaces = static_cast<std::int64_t>(dnn_->held_bytes());
  out.communication += comm_->staging_bytes();
  out.other =
      static_cast<std::int64_t>(2 * (buffers_.bytes() + teacher_buffers_.bytes()) + method_->bytes() + upload_.bytes());
  return out;
}

const float* Learner::buffers() {
  buffers_.fetch(queue_);
  queue_.wait();
  return buffers_.on_host();
}

void Learner::set_buffers(const std::vector<float>& values) {
  for (auto* buffers : {&buffers_, &teacher_buffers_}) {
    std::copy_n(values.begin(), buffers->size(), buffers->on_host());
    buffers->send(queue_);
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
  if (group_) {
    for (const auto& t : group_->traffic()) out.push_back(t);
  }
  for (const auto& t : comm_->traffic()) out.push_back(t);
  return out;
}

std::vector<checkpoint::Slab> Learner::slabs() {
  auto out = state_.slabs();
  for (const auto& [group, buffers] : {std::pair("buffers", &buffers_), {"teacher_buffers", &teacher_buffers_}}) {
    buffers->fetch(queue_);
    queue_.wait();
    for (const auto& b : model_.buffers().entries()) {
      if (buffers->size() == 0) continue;
      out.push_back({group, b.name, b.shape, buffers->on_host() + b.offset, 0, comm_->is_root() ? b.elems : 0});
    }
  }
  return out;
}

void Learner::share_loaded() {
  state_.share_loaded();
  for (auto* buffers : {&buffers_, &teacher_buffers_}) {
    comm_->broadcast(buffers->on_host(), buffers->bytes());
    buffers->send(queue_);
  }
  queue_.wait();
}

void Learner::save(checkpoint::State& state) const {
  method_->save(state.method);
  loss_scale_.save(state);
}

void Learner::restore(const checkpoint::State& state) {
  method_->restore(state.method, state.update);
  loss_scale_.restore(state);
}

}  // namespace seer::train
