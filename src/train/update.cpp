// SPDX-License-Identifier: Apache-2.0
// A learner's update: passes, and the decision whether to take the step.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "seer/comm/progress.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/recorder.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/train/learner.hpp"

namespace seer::train {
namespace {

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
    const auto row = at / (group.size * group.size * 3);
    const auto index = static_cast<std::size_t>(row % batch.images);
    return fmt::format("the pixels of crop {} of image {}", group.first_crop + row / batch.images,
                       index < batch.positions.size() ? batch.positions[index] : index);
  }
  return "";
}

}  // namespace

/// Segment by segment: trunk segments for all resolutions, then heads once on all crops. Parameters come and go.
void Learner::forward(nn::Context& ctx, std::span<const data::CropGroup> groups, Passes& passes,
                      device::Tensor features) {
  const auto& trunk = model_.trunk();
  std::size_t segments = trunk.segments();
  for (std::size_t h = 0; h < passes.heads.size(); ++h) segments += model_.heads()[h]->segments();
  const auto mode = ctx.mode;
  for (std::size_t s = 0; s < segments; ++s) {
    device::Recorder::enter(static_cast<int>(s));
    ctx.mode = s < frozen_ ? nn::Mode::eval : mode;
    ctx.fixed_statistics = fixed_statistics(s);
    state_.need(ctx, s, Direction::forward);
    probe_.enter(Direction::forward, s);
    if (s < trunk.segments()) {
      for (std::size_t g = 0; g < groups.size(); ++g) {
        trunk.forward(ctx, s, groups[g].images, *passes.trunk[g], of_group(features, groups[g]));
        comm::tell_progress();
      }
    } else {
      const auto [h, segment] = model_.head_segment(s);
      model_.heads()[h]->forward(ctx, segment, h == 0 ? features : passes.outputs[h - 1], *passes.heads[h],
                                 passes.outputs[h]);
    }
    const bool last = s + 1 == segments;  // its parameters stay for the loss and the backward pass
    if (!last) state_.drop(s, Direction::forward);
  }
  device::Recorder::enter(device::Recorder::kNoSection);
  ctx.mode = mode;
}

/// The same in reverse. Gradients are complete when all resolutions have passed; their sum runs beside what follows.
void Learner::backward(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor d_output,
                       device::Shape features) {
  const auto& trunk = model_.trunk();
  const auto d_features = pool_.tensor(features);
  auto& outputs = passes_.outputs;
  d_outputs_.clear();
  for (std::size_t h = 0; h + 1 < outputs.size(); ++h) {
    passes_.loans.push_back(pool_.tensor(outputs[h].shape));
    d_outputs_.push_back(*passes_.loans.back());
  }
  d_outputs_.push_back(d_output);
  for (std::size_t s = state_.segments(); s-- > 0;) {
    device::Recorder::enter(static_cast<int>(s));
    ctx.fixed_statistics = fixed_statistics(s);
    state_.need(ctx, s, Direction::backward);
    state_.open_gradients(ctx, s);
    probe_.enter(Direction::backward, s);
    if (s >= trunk.segments()) {
      const auto [h, segment] = model_.head_segment(s);
      model_.heads()[h]->backward(ctx, segment, d_outputs_[h], *passes_.heads[h],
                                  h == 0 ? *d_features : d_outputs_[h - 1]);
    } else if (s >= frozen_) {
      for (std::size_t g = batch.groups.size(); g-- > 0;) {
        trunk.backward(ctx, s, of_group(*d_features, batch.groups[g]), *passes_.trunk[g], {});
        ctx.add_gradients = true;
        comm::tell_progress();
      }
    } else if (s + 1 == frozen_) {
      for (const auto& pass : passes_.trunk) pass->clear();
    }
    state_.drop(s, Direction::backward);
    float* own = ctx.grad(begins_[s]);
    if (s == state_.segments() / 2) faults_.strike(queue_, update + 1, probe_.second_pass(), own);
    probe_.gradients(queue_, s, own);
    state_.close_gradients(s);
  }
  device::Recorder::enter(device::Recorder::kNoSection);
}

void Learner::borrow_outputs(Passes& passes, std::int64_t rows) {
  passes.outputs.clear();
  for (std::size_t h = 0; h < passes.heads.size(); ++h) {
    passes.loans.push_back(pool_.tensor({rows, 1, 1, model_.heads()[h]->width()}));
    passes.outputs.push_back(*passes.loans.back());
  }
}

device::Tensor Learner::teach(nn::Context ctx, const data::Batch& batch) {
  if (!taught()) return {};
  const auto timer = phases_->time(Phase::forward);
  const auto groups = std::span(batch.groups).first(1);
  const std::int64_t rows = groups.front().count * images_;
  ctx.buffers = statistics_.back().values.on_queue();
  ctx.mode = nn::Mode::observe;
  state_.use(FlatState::Which::teacher);
  auto& teacher = teacher_passes_;
  teacher.loans.push_back(pool_.tensor({rows, 1, 1, model_.trunk().width()}));
  const auto features = *teacher.loans.back();
  borrow_outputs(teacher, rows);
  forward(ctx, groups, teacher, features);
  state_.use(FlatState::Which::student);
  return teacher.outputs.empty() ? features : teacher.outputs.back();
}

std::size_t Learner::frozen_segments(std::int64_t update) const {
  const auto& tensors = model_.parameters().entries();
  const auto trains = [&](const nn::Parameter& p) { return p.treatment.frozen_updates <= update; };
  const auto first = std::ranges::find_if(tensors, trains);
  const auto trunk_end = begins_[model_.trunk().segments()];
  const auto offset = first == tensors.end() ? trunk_end : std::min(first->offset, trunk_end);
  return static_cast<std::size_t>(std::ranges::upper_bound(begins_, offset) - begins_.begin()) - 1;
}

void Learner::follow(std::int64_t update) {
  const double momentum = method_->teacher_momentum(update, length_);
  state_.follow(momentum);
  if (averaged())
    kernels::follow(queue_, statistics_.front().values.view(), momentum, statistics_.back().values.view());
}

std::vector<float> Learner::scores(device::Tensor images) {
  nn::Context ctx{.dnn = dnn_.get(),
                  .pool = &pool_,
                  .queue = queue_,
                  .buffers = tested_statistics().on_queue(),
                  .rounded = &rounded_,
                  .compute = compute_type(config_.precision),
                  .mode = nn::Mode::eval};
  device::Loan there;
  if (queue_.space != device::Space::host) {
    there = pool_.tensor(images.shape);
    device::copy(queue_, images.data, device::Space::host, there->data, queue_.space,
                 static_cast<std::size_t>(images.bytes()));
    images = *there;
  }
  const auto n = images.shape.n;
  Passes passes;
  passes.trunk.push_back(model_.trunk().make_pass());
  for (const auto& head : model_.heads()) passes.heads.push_back(head->make_pass());
  const auto features = pool_.tensor({n, 1, 1, model_.trunk().width()});
  borrow_outputs(passes, n);
  const data::CropGroup group{images.shape.h, 0, 1, images};
  state_.use(averaged() ? FlatState::Which::teacher : FlatState::Which::student);
  forward(ctx, std::span(&group, 1), passes, *features);
  state_.use(FlatState::Which::student);
  const auto out = passes.outputs.empty() ? *features : passes.outputs.back();
  std::vector<float> values(static_cast<std::size_t>(out.elems()));
  device::copy(queue_, out.data, queue_.space, values.data(), device::Space::host,
               static_cast<std::size_t>(out.bytes()));
  queue_.wait();
  return values;
}

const method::Share& Learner::passes(nn::Context& ctx, const data::Batch& batch, std::int64_t update,
                                     device::Tensor teacher, FlatState::Sums sums) {
  const std::int64_t rows = crops_ * images_;
  const auto features = pool_.tensor({rows, 1, 1, model_.trunk().width()});
  borrow_outputs(passes_, rows);
  const auto& outputs = passes_.outputs;
  state_.begin_update(sums);
  {
    const auto timer = phases_->time(Phase::forward);
    forward(ctx, batch.groups, passes_, *features);
    probe_.output(queue_, outputs.back());
  }
  const auto d_output = pool_.tensor(outputs.back().shape);
  const method::Share* share = nullptr;
  {
    const auto timer = phases_->time(Phase::loss);
    share = &method_->loss({ctx, batch, update, loss_scale_.value(), outputs, teacher, *d_output});
    probe_.loss(share->loss);
  }
  const auto timer = phases_->time(Phase::backward);
  backward(ctx, batch, update, *d_output, features->shape);
  passes_.loans.clear();
  return *share;
}

Learner::Outcome Learner::update(const data::Batch& given, std::int64_t update, double lr, Figures figures) {
  const auto& batch = upload_.bring(queue_, given);
  nn::Context ctx{.dnn = dnn_.get(),
                  .pool = &pool_,
                  .queue = queue_,
                  .buffers = statistics_.front().values.on_queue(),
                  .rounded = &rounded_,
                  .compute = compute_type(config_.precision),
                  .mode = nn::Mode::train,
                  .group = group_ ? &*group_ : nullptr};
  for (const auto& s : statistics_) kernels::copy(queue_, s.values.view(), s.kept.view());
  method_->prepare(queue_, batch, update);
  frozen_ = frozen_segments(update);
  const auto teacher = teach(ctx, batch);  // once: its output is the same for both passes
  const bool twice = config_.guard.replay_every > 0 && (update + 1) % config_.guard.replay_every == 0;
  probe_.begin(twice);
  if (twice) {
    passes(ctx, batch, update, teacher, FlatState::Sums::no);
    kernels::copy(queue_, statistics_.front().kept.view(), statistics_.front().values.view());
    probe_.begin_second_pass();
  }
  const auto& share = passes(ctx, batch, update, teacher, FlatState::Sums::yes);
  teacher_passes_.loans.clear();

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
    for (const auto& s : statistics_) kernels::copy(queue_, s.kept.view(), s.values.view());
  } else {
    out.grad_norm = state_.step(lr);
    method_->accept();
    if (statistics_.size() > 1) follow(update);
  }
  loss_scale_.observe(std::isfinite(out.loss) && std::isfinite(out.grad_norm));
  return out;
}

/// Decides whether to take the step, and if not, finds the origin. All ranks decide alike.
void Learner::judge(Outcome& out, const data::Batch& batch, const method::Share& share, bool twice) {
  auto& culprits = out.culprits;
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
    if (culprits.empty())  // finite on every rank, but the sum is not
      culprits.push_back({-1, "", "the sum over ranks of the gradient of " + state_.optimizer().not_finite(), {}});
  }
  if (out.cause == Cause::none && refused_ && refused_(out.loss)) {
    out.cause = Cause::outlier;
    const bool largest = share.loss == comm_->all_reduce(share.loss, comm::Op::max);
    culprits = earliest(*comm_, largest ? std::optional(Finding{0, "the largest share of the loss"}) : std::nullopt,
                        batch.positions);
  }
  out.skipped = out.cause != Cause::none;
}

/// One small all-reduce: loss, figures' sums, whether a rank was asked to stop or save, whether gradients are small.
Learner::Outcome Learner::agree_on_outcome(const data::Batch& batch, const method::Share& share, Figures figures) {
  {
    const auto timer = phases_->time(Phase::backward);  // a device has not finished it yet
    probe_.settle(queue_);
  }
  const auto timer = phases_->time(Phase::reduce);
  const auto asked = asked_();
  sums_.assign({share.loss, static_cast<double>(batch.replaced), asked.stop ? 1.0 : 0.0, asked.checkpoint ? 1.0 : 0.0,
                probe_.sums_are_safe() ? 0.0 : 1.0});
  const std::size_t fixed = sums_.size();
  if (figures == Figures::yes) sums_.insert(sums_.end(), share.sums.begin(), share.sums.end());
  comm_->all_reduce(std::span(sums_));
  Outcome out;
  out.loss = sums_[0];
  out.bad_images = static_cast<std::int64_t>(sums_[1]);
  out.stop = sums_[2] > 0;
  out.checkpoint = sums_[3] > 0;
  out.sums_are_safe = sums_[4] == 0;
  if (figures == Figures::yes) out.figures = method_->figures(std::span(sums_).subspan(fixed));
  return out;
}

}  // namespace seer::train
