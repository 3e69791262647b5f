// SPDX-License-Identifier: Apache-2.0
// Parameters, gradients and momentum as flat blocks, whole or sharded over ranks (method.md 7.1), and the collectives
// that keep them together, run beside the computation.
//
// The blocks are cut into buckets of whole segments (stem, blocks, layers of the head). In a group of G
// ranks, rank r owns the r-th part of every bucket, balanced to the element, so a tensor may be split. Groups hold
// replicas of each other. Without sharding G is 1, and everything below is the same.
//
// What is gathered for a while, parameters of other ranks or gradients not yet summed, lies in two slots that buckets
// take turns in: one is worked on while the other is on its way.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/stream.hpp"
#include "seer/config/config.hpp"
#include "seer/device/pinned.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/footprint.hpp"
#include "seer/train/optimizer.hpp"
#include "seer/train/phases.hpp"

namespace seer::train {

/// What is split over a group; each includes the one before.
enum class Sharding : std::uint8_t {
  none,
  optimizer,   ///< momentum
  gradients,   ///< and gradients: no rank holds more than a bucket or two of foreign ones
  parameters,  ///< and parameters: gathered just before a segment needs them, dropped after it
};

class FlatState {
 public:
  enum class Direction : std::int8_t { forward = 1, backward = -1 };

  /// Whose parameters are asked for.
  enum class Which : bool { student, teacher };

  /// Collective. The blocks lie where `queue` works. With a teacher, a second set of parameters. Error(input) for a
  /// shard group that does not divide the ranks; Error(device), agreed, for what the node's or the device's memory
  /// cannot hold.
  FlatState(const config::Config& config, const comm::Communicator& comm, const nn::Model& model, Phases& phases,
            const device::Queue& queue, bool teacher = false);

  /// Starting values, of student and teacher. `tensor` is called for every tensor in the table's order, on every rank.
  void fill(const std::function<void(const nn::Parameter&, float* values)>& tensor);

  /// Those of the trunk, then those of the head.
  std::size_t segments() const { return bucket_of_.size(); }

  /// Whether gradients are summed over ranks as they are closed.
  enum class Sums : bool { no, yes };

  // Of one update, in this order. ----------------------------------------------------------------------------------
  /// Without sums: for passes that are made for comparison, after which the update begins anew.
  void begin_update(Sums sums = Sums::yes);
  /// From here on need() is about these. Waits for what is still being gathered.
  void use(Which which);
  /// teacher = momentum * teacher + (1 - momentum) * student, after step(). Waits for what is still being gathered.
  void follow(double momentum);
  /// Lets ctx point to the parameters of a segment; those of the next one in this direction are fetched meanwhile.
  void need(nn::Context& ctx, std::size_t segment, Direction direction);
  /// The segment's parameters are not needed again in this direction.
  void drop(std::size_t segment, Direction direction);
  /// Lets ctx point to where a segment's gradients are accumulated.
  void open_gradients(nn::Context& ctx, std::size_t segment);
  /// The segment's gradients are complete on this rank: their sum over ranks begins. Norms of the buckets whose sum
  /// has arrived meanwhile are taken.
  void close_gradients(std::size_t segment);
  /// Where no rank has a larger gradient, the sums over ranks are finite.
  float most_gradient() const;
  /// Waits for the sums that are still on their way, taking norms as they arrive. Returns the norm of all gradients
  /// that take part in the update; not finite if they are not. Changes nothing, and need not be asked for.
  double gradient_norm();
  /// Parameters -= ... on every owner, each bucket when its sum has arrived (sharded: all but the first one, and then
  /// that one); then back to all, and waited for where they are needed. Returns gradient_norm().
  /// Error(device) if that is not finite.
  double step(double lr);
  /// Instead of step(): parameters and momentum stay to the bit. Only rows that are to have length one and do not, as
  /// before the first update, are brought to it.
  void skip();

  Optimizer& optimizer() { return optimizer_; }
  /// What the blocks and their staging hold.
  void add_to(Footprint& footprint) const;

  // Checkpoints and tests. -----------------------------------------------------------------------------------------
  /// This rank's part of every tensor of "model", "momentum" and, with one, "teacher"; over all ranks each element
  /// once. Of a device: copies of what it holds now, which stay in place.
  std::vector<checkpoint::Slab> slabs();
  /// Collective, after the slabs were filled.
  void share_loaded();
  /// Collective: the whole block, on every rank.
  std::vector<float> whole_parameters();
  std::vector<float> whole_gradients();  ///< of the last update, averaged over ranks
  /// Of the communicators "shard" (a group), "replicas" (the same part in all groups) and "norms" (a group again).
  /// Waits for what is still under way.
  std::vector<comm::Traffic> traffic();

 private:
  struct Bucket {
    std::int64_t begin = 0, end = 0;          ///< in the block
    std::int64_t own_begin = 0, own_end = 0;  ///< of it, this rank's part
    std::int64_t packed = 0;                  ///< where that is in arrays that hold own parts alone
    std::size_t first_segment = 0, last_segment = 0;
    std::size_t first_tensor = 0, last_tensor = 0;  ///< of the table, the last one not included
    Optimizer::Part part;
    std::vector<const nn::Parameter*> unit_rows;  ///< its tensors that are treated so
    bool gathered = false;                        ///< parameters mode: they lie in its slot, or are on their way there
    comm::Stream::Ticket gather = 0, sum = 0;
    std::int64_t elems() const { return end - begin; }
    std::int64_t own_elems() const { return own_end - own_begin; }
  };
  bool on_device() const { return queue_.space == device::Space::device; }
  device::Tensor view(float* values, std::int64_t count) const { return device::view(values, count, queue_.space); }
  void cut(const nn::Model& model, std::int64_t bucket_bytes);
  bool shards(Sharding what) const { return sharding_ >= what; }
  std::size_t index_of(const Bucket& b) const { return static_cast<std::size_t>(&b - buckets_.data()); }
  float* own_parameters(const Bucket& b);
  float* own_momenta(const Bucket& b) { return momenta_.f32() + b.packed; }
  float* own_gradients(const Bucket& b);
  /// All of the bucket: in the block, or in its slot.
  float* whole_parameters_of(const Bucket& b);
  float* whole_gradients_of(const Bucket& b);
  void fetch(Bucket& b);
  void post_gather(Bucket& b);
  void forget_gathered();
  float* own_teacher(const Bucket& b);
  /// Pointers to this rank's part of a bucket, and where its slabs are: of parameters, momenta, teacher.
  std::vector<std::pair<float*, float*>> parts(const Bucket& b);
  void measure_down_to(std::size_t bucket);
  void measure_arrived();
  void know_norms_down_to(std::size_t bucket);
  void look();
  void put_back();
  std::vector<float> whole(float* (FlatState::*own)(const Bucket&));
  void wait(Phase phase, comm::Stream::Ticket ticket);
  void settle();
  void normalize_rows(float tolerance);
  void finish_update();

  const comm::Communicator* comm_;
  const nn::ParameterTable* table_;
  Phases* phases_;
  Sharding sharding_;
  DType wire_;  ///< gradients travel as this
  device::Queue queue_;
  comm::BlockCommunicator group_, replicas_, norms_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;
  std::int64_t own_elems_ = 0;
  Optimizer optimizer_;
  /// Buckets from these on: complete on this rank; summed, own part's norms taken; norms summed over the group.
  std::size_t closed_ = 0, measured_ = 0, known_ = 0;
  device::Buffer parameters_, gradients_, own_gradients_, momenta_, teacher_;
  Which which_ = Which::student;
  device::Buffer parameter_slots_[2], gradient_slots_[2];
  device::PinnedBuffer mirror_;  ///< of a device's own parts, one kind after the other, from the first slabs() on
  std::uint64_t version_ = 1;
  Sums sums_ = Sums::yes;
  double exposed_ms_ = 0;
  comm::Stream stream_;  // last: its thread uses everything above
};

/// "none", "optimizer", "gradients" or "parameters".
Sharding parse_sharding(const std::string& text);

}  // namespace seer::train
