// SPDX-License-Identifier: Apache-2.0
// One update: forward pass, the method's loss, backward pass, reduction, optimizer. Also gives the state for
// checkpoints.
#pragma once

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
#include "seer/train/faults.hpp"
#include "seer/train/flat_state.hpp"
#include "seer/train/footprint.hpp"
#include "seer/train/image_upload.hpp"
#include "seer/train/phases.hpp"
#include "seer/train/precision.hpp"
#include "seer/train/probe.hpp"

namespace seer::train {

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

  /// Collective. Loads parameters and running statistics from a weights file, checkpoint or run folder. Error(file).
  void start_from(const std::string& path);

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

  /// Requests to this rank. Every update reads them after its passes, and tells all ranks.
  struct Asked {
    bool stop = false, checkpoint = false;
  };
  /// Sets the length of the run. Until it is set: schedule.total_updates.
  void set_length(std::int64_t updates) { length_ = updates; }
  void take_requests(std::function<Asked()> asked) { asked_ = std::move(asked); }
  /// Skips updates for whose loss (mean over ranks) `refused` returns true. It must return the same on all ranks.
  void refuse_losses(std::function<bool(double loss)> refused) { refused_ = std::move(refused); }

  /// This rank's part of a checkpoint: its part of parameters and momentum; on rank 0 the running statistics (those of
  /// the first BatchNorm group).
  std::vector<checkpoint::Slab> slabs();
  /// Collective. Call after slabs() were filled from a checkpoint: gives every rank all values.
  void share_loaded();
  /// State of the method and of the loss scale. Collective.
  void save(checkpoint::State& state) const;
  void restore(const checkpoint::State& state);

  const nn::Model& model() const { return model_; }
  method::Method& method() { return *method_; }
  /// Collective. Whole flat blocks on every rank: the parameters, and the last update's gradients, averaged over ranks
  /// and unscaled.
  std::vector<float> parameters() { return state_.whole_parameters(); }
  std::vector<float> gradients();
  /// Current running statistics, on the host.
  const float* buffers();
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
  /// The queue of the updates; null on the host and on a planned machine.
  device::DeviceQueue* device_queue() const { return own_queue_.get(); }
  /// Messages of this rank's communicators so far: "shard", "replicas", "norms" (see FlatState), "bn", and "world",
  /// which also counts messages of others over the learner's ranks. Waits for work in progress.
  std::vector<comm::Traffic> traffic();

 private:
  class GroupReduction;
  Outcome agree_on_outcome(const data::Batch& batch, const method::Share& share, Figures figures);
  /// The teacher's forward pass on the crops of the first size. Its output stays in teacher_loans_.
  device::Tensor teach(nn::Context ctx, const data::Batch& batch);
  /// Forward pass, loss, backward pass. `update` counts from 0.
  const method::Share& passes(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor teacher,
                              FlatState::Sums sums);
  void forward(nn::Context& ctx, const data::Batch& batch, device::Tensor features);
  void backward(nn::Context& ctx, const data::Batch& batch, std::int64_t update, device::Tensor d_output,
                device::Shape features);
  void set_buffers(const std::vector<float>& values);
  void judge(Outcome& out, const data::Batch& batch, const method::Share& share, bool twice);

  const config::Config config_;
  const comm::Communicator* comm_;
  Phases* phases_;
  std::int64_t images_ = 0, crops_ = 0;
  nn::Model model_;
  std::vector<std::int64_t> begins_;  ///< first element of each segment
  MemoryPlan plan_;
  std::shared_ptr<dnn::Backend> dnn_;
  std::unique_ptr<device::DeviceQueue> own_queue_;
  device::Queue queue_;
  device::Pool pool_;
  FlatState state_;
  LossScale loss_scale_;
  double last_scale_ = 1;  ///< scale of the current gradients
  /// Running statistics of student and teacher, and copies from before the update.
  device::Mirrored<float> buffers_, teacher_buffers_;
  device::Buffer kept_buffers_, kept_teacher_buffers_;
  ImageUpload upload_;
  Probe probe_;
  Faults faults_;
  std::function<Asked()> asked_ = [] { return Asked(); };
  std::function<bool(double)> refused_;
  std::unique_ptr<GroupReduction> group_;
  comm::BlockCommunicator world_;
  std::int64_t length_;  ///< of the run, in updates
  std::unique_ptr<method::Method> method_;
  std::vector<std::unique_ptr<nn::Pass>> passes_;          ///< trunk, one per crop resolution
  std::vector<std::unique_ptr<nn::Pass>> teacher_passes_;  ///< trunk and heads; empty without a teacher
  std::vector<std::unique_ptr<nn::Pass>> head_passes_;
  std::vector<device::Loan> loans_;  ///< memory of outputs_ and d_outputs_ in an update
  std::vector<device::Loan> teacher_loans_;
  std::vector<device::Tensor> outputs_;    ///< of the heads
  std::vector<device::Tensor> d_outputs_;  ///< their gradients
  std::vector<double> sums_;               ///< used by agree_on_outcome(); kept to reuse its memory
};

}  // namespace seer::train
