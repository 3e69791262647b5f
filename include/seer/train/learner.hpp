// SPDX-License-Identifier: Apache-2.0
// One update: forward pass, the method's loss, backward pass, reduction, optimizer; and the state for checkpoints.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/method/method.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/flat_state.hpp"
#include "seer/train/memory_plan.hpp"
#include "seer/train/phases.hpp"
#include "seer/train/probe.hpp"

namespace seer::train {

/// Copies crops that were made on the host to where the learner computes.
class ImageUpload {
 public:
  /// Returns the batch with its images in the queue's space: the same batch if they are there already. Else copies them
  /// through pinned memory, after the work that is in the queue; the host's images may change once this returns. Two
  /// sets take turns, so one can be filled while the update with the other still runs. The update with the batch before
  /// the last must have finished. The result is valid until the call after the next.
  const data::Batch& bring(device::Queue& queue, const data::Batch& batch) {
    const auto there = [&](const data::CropGroup& group) { return group.images.space == queue.space; };
    if (std::ranges::all_of(batch.groups, there)) return batch;
    auto& set = sets_[turn_++ % 2];
    set.batch = batch;
    set.copies.resize(batch.groups.size());
    for (std::size_t g = 0; g < batch.groups.size(); ++g) {
      if (there(batch.groups[g])) continue;
      auto& images = set.batch.groups[g].images;
      auto& copy = set.copies[g];
      const auto count = static_cast<std::size_t>(images.elems());
      if (copy.size() < count) copy = device::Mirrored<float>(count, queue.space);
      std::copy_n(images.f32(), count, copy.on_host());
      copy.send(queue, count);
      images.data = copy.on_queue();
      images.space = queue.space;
    }
    return set.batch;
  }

  /// Bytes in the queue's space.
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& set : sets_)
      for (const auto& copy : set.copies) sum += copy.bytes();
    return sum;
  }

 private:
  struct Set {
    data::Batch batch;
    std::vector<device::Mirrored<float>> copies;
  };
  Set sets_[2];
  std::size_t turn_ = 0;
};

/// Why an update was skipped.
enum class Cause : std::uint8_t {
  none,        ///< it was not
  loss_scale,  ///< gradients were not finite, the loss was: normal now and then with a dynamic loss scale above 1
  not_finite,  ///< loss or gradients were not finite
  outlier,     ///< refuse_losses() refused the loss
  replay,      ///< the second pass gave different bits (guard.replay_every)
};

class Learner {
 public:
  /// Collective. Computes on `parallel.device`, with `backend` or, if null, the library for that device. Recomputes
  /// what the plan says. Parameters start at random from `data.seed`. Error(input) for a batch or a BatchNorm group
  /// size that does not fit the number of ranks, for a precision that some rank cannot compute in, and for what model
  /// and method refuse. On a planned communicator, there are no values, and nothing is computed.
  Learner(const config::Config& config, const comm::Communicator& comm, Phases& phases, MemoryPlan plan,
          std::shared_ptr<dnn::Backend> backend = nullptr);
  ~Learner();

  /// Collective. Loads parameters and running statistics from a weights file, checkpoint or run folder, which `key` of
  /// the configuration names; for model.init_from also momenta if it has them ([continue]). A head that is missing or
  /// has other shapes there starts at random, and so do those above it; the log says what was taken over. Error(file)
  /// if the trunk does not fit; Error(input) if a classifier that is to be kept does not.
  void start_from(const std::string& path, const std::string& key = "model.init_from");
  /// Collective. Replaces the values of the prototypes: rows of length one, the same on all ranks.
  void replace_prototypes(std::span<const float> rows);

  struct Outcome {
    double loss = 0;                ///< mean over ranks
    double grad_norm = 0;           ///< unscaled
    double loss_scale = 1;          ///< used by this update
    bool skipped = false;           ///< the update changed nothing
    Cause cause = Cause::none;      ///< why it was skipped
    std::vector<Culprit> culprits;  ///< where the fault began; the same on all ranks
    /// True if the loss comes from the network, not from a fault.
    bool loss_counts() const { return cause == Cause::none || cause == Cause::loss_scale; }
    /// The loss, or NaN if it does not count.
    double counted_loss() const { return loss_counts() ? loss : std::numeric_limits<double>::quiet_NaN(); }
    std::vector<method::Figure> figures;  ///< of the method; empty unless requested
    std::int64_t bad_images = 0;          ///< of this update, all ranks
    bool stop = false;                    ///< some rank was asked to stop
    bool checkpoint = false;              ///< a checkpoint was asked for
    bool sums_are_safe = false;           ///< no sum of gradients over ranks can overflow
  };
  /// Whether to compute the method's figures; the same on all ranks.
  enum class Figures : bool { no, yes };

  /// Collective. Does update number `update` (0-based) at rate `lr` on this rank's part of the batch. If loss or
  /// gradients are not finite on any rank, all ranks skip the update, in any precision: parameters, momentum, running
  /// statistics and the method's state keep every bit. (Prototypes that never had length one get it, as in any update.)
  /// A dynamic loss scale is halved then. The guard decides what follows (run/guard.hpp).
  Outcome update(const data::Batch& batch, std::int64_t update, double lr, Figures figures = Figures::no);

  /// Collective; every rank calls it equally often. The last head's outputs, [n, width], on the host, for normalised
  /// images [n, h, w, 3] on the host: with running statistics, and with the averaged parameters if there are any.
  /// Changes nothing.
  std::vector<float> scores(device::Tensor images);
  /// Collective. From here on scores() takes on every rank the running statistics of the first BatchNorm group, which
  /// are those of a checkpoint. end_test() puts back each rank's own, with the same bits; no update comes before it.
  void begin_test();
  void end_test();
  /// Number of the trunk's first segments that do not change in this update (nn::Treatment): they run with running
  /// statistics, which also stay as they are, and without a backward pass.
  std::size_t frozen_segments(std::int64_t update) const;
  /// Number of classes or prototypes: columns of scores().
  std::int64_t width() const {
    return model_.heads().empty() ? model_.trunk().width() : model_.heads().back()->width();
  }

  /// Requests to this rank. Every update reads them after its passes, and tells all ranks.
  struct Asked {
    bool stop = false, checkpoint = false;
  };
  /// Sets the length of the run. Until it is set: schedule.total_updates.
  void set_length(std::int64_t updates) { length_ = updates; }
  void take_requests(std::function<Asked()> asked) { asked_ = std::move(asked); }
  /// Skips updates for whose loss (mean over ranks) `refused` returns true. It must return the same on all ranks.
  void refuse_losses(std::function<bool(double loss)> refused) { refused_ = std::move(refused); }

  /// This rank's part of parameters and momentum; on rank 0 the running statistics (of the first BatchNorm group).
  std::vector<checkpoint::Slab> slabs();
  /// Collective. Call after slabs() were filled from a checkpoint: gives every rank all values.
  void share_loaded();
  /// State of the method and of the loss scale. Collective.
  void save(checkpoint::State& state) const {
    method_->save(state.method);
    loss_scale_.save(state);
  }
  void restore(const checkpoint::State& state) {
    method_->restore(state.method, state.update);
    loss_scale_.restore(state);
  }

  const nn::Model& model() const { return model_; }
  method::Method& method() { return *method_; }
  /// Which parameters and running statistics: those that learn, or those that scores() takes, the averaged ones if
  /// there are any.
  enum class Values : bool { learning, tested };
  /// Collective. Whole flat blocks: the parameters, and the last update's gradients, averaged over ranks and unscaled.
  std::vector<float> parameters(Values which = Values::learning) {
    return which == Values::tested && averaged() ? state_.whole_teacher() : state_.whole_parameters();
  }
  std::vector<float> gradients();
  /// Current running statistics, on the host.
  const float* buffers(Values which = Values::learning);
  std::int64_t images_per_rank() const { return images_; }
  std::size_t activation_peak_bytes() const { return pool_.peak_bytes(); }
  /// Memory that this rank holds now, without `data`, `checkpoint` and libraries.
  Footprint footprint() const;
  /// How often activations took memory from the system: constant after the second update.
  std::uint64_t pool_allocations() const { return pool_.system_allocations(); }
  std::string describe() const;
  /// What each segment keeps; the rest is recomputed.
  const KeepTable& keep() const { return plan_.keep; }
  device::Space space() const { return queue_.space; }
  /// In which its updates run.
  const device::Queue& queue() const { return queue_; }
  /// The queue of the updates; null on the host and on a planned machine.
  device::DeviceQueue* device_queue() const { return own_queue_.get(); }
  /// Messages of this rank's communicators so far: "shard", "replicas", "norms" (see FlatState), "bn", and "world",
  /// which also counts messages of others over the learner's ranks. Waits for work in progress.
  std::vector<comm::Traffic> traffic();

 private:
  /// Sums over a BatchNorm group.
  class GroupReduction final : public nn::StatisticsReduction {
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
  Outcome agree_on_outcome(const data::Batch& batch, const method::Share& share, Figures figures);
  /// Passes through the model, and what they have borrowed in an update.
  struct Passes {
    std::vector<std::unique_ptr<nn::Pass>> trunk;  ///< one per crop resolution
    std::vector<std::unique_ptr<nn::Pass>> heads;
    std::vector<device::Tensor> outputs;  ///< of the heads
    std::vector<device::Loan> loans;
  };
  /// Running statistics, and a copy from before the update.
  struct Statistics {
    device::Mirrored<float> values;
    device::Buffer kept;
  };
  bool taught() const { return !teacher_passes_.trunk.empty(); }
  /// There are averaged parameters and running statistics (method::Kind::averages).
  bool averaged() const { return statistics_.size() > 1 && !taught(); }
  /// The running statistics that scores() takes.
  device::Mirrored<float>& tested_statistics() {
    return (averaged() ? statistics_.back() : statistics_.front()).values;
  }
  void follow(std::int64_t update);
  /// BatchNorm of heads is new where that of the trunk is kept.
  bool fixed_statistics(std::size_t segment) const {
    return config_.finetune.batchnorm == "frozen" && segment < model_.trunk().segments();
  }
  void borrow_outputs(Passes& passes, std::int64_t rows);
  /// The teacher's forward pass on the crops of the first size. Its output stays in the teacher's loans.
  device::Tensor teach(nn::Context ctx, const data::Batch& batch);
  /// Forward pass, loss, backward pass. `update` counts from 0.
  const method::Share& passes(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor teacher,
                              FlatState::Sums sums);
  /// The rows of `all` that belong to these crops.
  device::Tensor of_group(device::Tensor all, const data::CropGroup& group) const {
    return all.slice(group.first_crop * images_, group.images.shape.n);
  }
  void forward(nn::Context& ctx, std::span<const data::CropGroup> groups, Passes& passes, device::Tensor features);
  void backward(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor d_output,
                device::Shape features);
  /// Sets a tensor's starting values.
  using Fill = std::function<void(const nn::Parameter&, float* values)>;
  /// Sets those of all parameters and running statistics, of student and teacher.
  void fill(const Fill& parameter, const Fill& buffer);
  void judge(Outcome& out, const data::Batch& batch, const method::Share& share, bool twice);

  const config::Config config_;
  const comm::Communicator* comm_;
  Phases* phases_;
  std::int64_t images_ = 0, crops_ = 0;
  nn::Model model_;
  std::vector<std::int64_t> begins_;  ///< first element of each segment
  std::size_t frozen_ = 0;            ///< frozen_segments() of the current update
  MemoryPlan plan_;
  std::shared_ptr<dnn::Backend> dnn_;
  std::unique_ptr<device::DeviceQueue> own_queue_;
  device::Queue queue_;
  device::Pool pool_;
  nn::RoundedWeights rounded_;
  FlatState state_;
  LossScale loss_scale_;
  double last_scale_ = 1;               ///< scale of the current gradients
  std::vector<Statistics> statistics_;  ///< of the student and, if there is one, of the teacher
  std::vector<float> own_statistics_;   ///< in a test: this rank's, if other ranks have others
  ImageUpload upload_;
  Probe probe_;
  Faults faults_;
  std::function<Asked()> asked_ = [] { return Asked(); };
  std::function<bool(double)> refused_;
  std::optional<GroupReduction> group_;
  comm::BlockCommunicator world_;
  std::int64_t length_;  ///< of the run, in updates
  std::unique_ptr<method::Method> method_;
  Passes passes_, teacher_passes_;
  std::vector<device::Tensor> d_outputs_;  ///< gradients of the heads' outputs
  std::vector<double> sums_;               ///< used by agree_on_outcome(); kept to reuse its memory
};

}  // namespace seer::train
