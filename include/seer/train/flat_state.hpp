// SPDX-License-Identifier: Apache-2.0
// Parameters, gradients and momentum as flat blocks, whole or sharded over ranks (method.md 7.1). The collectives that
// keep them together run beside the computation.
//
// The blocks are cut into buckets of whole segments (stem, blocks, layers of the head). In a group of G ranks, rank r
// owns the r-th part of every bucket. Parts are balanced to the element, so a tensor may be split. Groups are replicas
// of each other. Without sharding G is 1, and everything below is the same.
//
// Data that is gathered for a short time (parameters of other ranks, gradients not yet summed) lies in two slots, which
// the buckets use in turn: one is worked on while the other is in transit.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/stream.hpp"
#include "seer/config/config.hpp"
#include "seer/device/memory.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/memory_plan.hpp"
#include "seer/train/optimizer.hpp"
#include "seer/train/phases.hpp"

namespace seer::train {

/// What is split over a group. Each value includes the one before.
enum class Sharding : std::uint8_t {
  none,
  optimizer,   ///< momentum
  gradients,   ///< and gradients: a rank holds at most two buckets that it does not own
  parameters,  ///< and parameters: gathered just before a segment needs them, dropped after it
};

class FlatState {
 public:
  /// Which set of parameters is used.
  enum class Which : bool { student, teacher };

  /// Collective. The blocks lie in the memory of `queue`. With a teacher, there is a second set of parameters.
  /// Error(input) for a shard group that does not divide the ranks; Error(device), agreed, if the memory of the node or
  /// device is too small.
  FlatState(const config::Config& config, const comm::Communicator& comm, const nn::Model& model, Phases& phases,
            const device::Queue& queue, bool teacher = false);

  /// Sets the starting values of student and teacher. Every rank calls `tensor` for every tensor, in the table's order.
  void fill(const std::function<void(const nn::Parameter&, float* values)>& tensor);
  /// Sets the momenta, which start as zeros, in the same way.
  void fill_momenta(const std::function<void(const nn::Parameter&, float* values)>& tensor);

  /// Number of segments: first those of the trunk, then those of the heads.
  std::size_t segments() const { return bucket_of_.size(); }

  /// Whether close_gradients() sums over ranks.
  enum class Sums : bool { no, yes };

  // One update calls these in this order. ---------------------------------------------------------------------------
  /// Without sums: for passes that only serve a comparison. After them the update begins anew.
  void begin_update(Sums sums = Sums::yes);
  /// Selects the parameters that need() fetches from here on. Waits for gathers in progress.
  void use(Which which) {
    forget_gathered();
    which_ = which;
  }
  /// Call after step(): teacher = momentum * teacher + (1 - momentum) * student. Waits for gathers in progress.
  void follow(double momentum);
  /// Makes ctx point to the parameters of a segment, and starts to fetch those of the next one in this direction.
  void need(nn::Context& ctx, std::size_t segment, Direction direction);
  /// The segment's parameters are not needed again in this direction.
  void drop(std::size_t segment, Direction direction);
  /// Makes ctx point to where the gradients of a segment are accumulated: its first backward pass overwrites what is
  /// there, or adds to zeros.
  void open_gradients(nn::Context& ctx, std::size_t segment);
  /// The segment's gradients are complete on this rank: starts their sum. Takes norms of buckets whose sum has arrived.
  void close_gradients(std::size_t segment);
  /// Returns a limit: if no rank has a larger gradient, the sums over ranks are finite.
  float most_gradient() const;
  /// Optional. Waits for the sums in progress and takes norms as they arrive. Returns the norm of all gradients that
  /// take part in the update; not finite if they are not. Changes no values.
  double gradient_norm();
  /// Parameters -= ... on every owner: updates each bucket when its sum has arrived (sharded: all buckets but the
  /// first, then the first). Then starts to gather the parameters to all ranks; they are waited for where they are
  /// needed. Returns gradient_norm(). Error(device) if that is not finite.
  double step(double lr);
  /// Instead of step(): parameters and momentum keep every bit. Only rows that must have length one and do not, as
  /// before the first update, are normalised.
  void skip();

  Optimizer& optimizer() { return optimizer_; }
  /// On one rank: squared norms of all tensors' gradients that somebody takes before close_gradients().
  void use_gradient_squares(const double* known) { known_squares_ = known; }
  /// Adds the bytes of the blocks and their staging.
  void add_to(Footprint& footprint) const;

  // For checkpoints and tests. ---------------------------------------------------------------------------------------
  /// This rank's part of every tensor of "model", "momentum" and, if there is a teacher, "teacher". Over all ranks each
  /// element occurs once. On a device, slabs are copies of the current values on the host; their addresses stay.
  std::vector<checkpoint::Slab> slabs();
  /// Collective. Call after the slabs were filled: shares their values with all ranks.
  void share_loaded();
  /// Collective: returns the whole block on every rank. Gradients: of the last update, averaged over ranks.
  std::vector<float> whole_parameters() { return whole(&FlatState::own_parameters); }
  std::vector<float> whole_teacher() { return whole(&FlatState::own_teacher); }
  std::vector<float> whole_gradients() { return whole(&FlatState::own_gradients); }
  /// Messages among "shard" and "norms" (a group) and "replicas" (same part in all groups). Waits for work in progress.
  std::vector<comm::Traffic> traffic();

 private:
  struct Bucket {
    std::int64_t begin = 0, end = 0;          ///< in the block
    std::int64_t own_begin = 0, own_end = 0;  ///< this rank's part of it
    std::int64_t packed = 0;                  ///< where own_begin is in arrays that hold own parts only
    std::size_t first_segment = 0, last_segment = 0;
    std::size_t first_tensor = 0, last_tensor = 0;  ///< in the table; the last one excluded
    Optimizer::Part part;
    std::vector<const nn::Parameter*> unit_rows;  ///< tensors with Treatment::unit_rows
    bool gathered = false;                        ///< parameters mode: they are in its slot, or in transit
    bool measured = false;                        ///< the optimizer has the squared norms of the parameters
    comm::Stream::Ticket gather = 0, sum = 0;
    std::int64_t elems() const { return end - begin; }
    std::int64_t own_elems() const { return own_end - own_begin; }
  };
  bool on_device() const { return queue_.space == device::Space::device; }
  device::Tensor view(float* values, std::int64_t count) const { return device::view(values, count, queue_.space); }
  void cut(const nn::Model& model, std::int64_t bucket_bytes);
  std::vector<float> whole_bucket(const Bucket& b,
                                  const std::function<void(const nn::Parameter&, float* values)>& tensor) const;
  bool shards(Sharding what) const { return sharding_ >= what; }
  std::size_t index_of(const Bucket& b) const { return static_cast<std::size_t>(&b - buckets_.data()); }
  /// This rank's part of a bucket: of parameters or the teacher's, of momenta, of gradients; in the whole bucket.
  float* own(const device::Buffer& block, const Bucket& b) const {
    return block.f32() + (shards(Sharding::parameters) ? b.packed : b.own_begin);
  }
  float* own_parameters(const Bucket& b) const { return own(parameters_, b); }
  float* own_teacher(const Bucket& b) const { return own(teacher_, b); }
  float* own_momenta(const Bucket& b) const { return momenta_.f32() + b.packed; }
  float* own_gradients(const Bucket& b) const {
    return shards(Sharding::gradients) ? own_gradients_.f32() + b.packed : gradients_.f32() + b.own_begin;
  }
  static float* own_part(const Bucket& b, float* whole) { return whole + (b.own_begin - b.begin); }
  /// The whole bucket: in the block, or in its slot.
  float* whole_parameters_of(const Bucket& b) const {
    return shards(Sharding::parameters) ? parameter_slots_[index_of(b) % 2].f32() : parameters_.f32() + b.begin;
  }
  float* whole_gradients_of(const Bucket& b) const {
    return shards(Sharding::gradients) ? gradient_slots_[index_of(b) % 2].f32() : gradients_.f32() + b.begin;
  }
  /// The parameters that use() selected.
  const device::Buffer& used() const { return which_ == Which::teacher ? teacher_ : parameters_; }
  void fetch(Bucket& b);
  void post_gather(Bucket& b);
  void forget_gathered() {
    for (auto& b : buckets_) {
      wait(Phase::gather, std::exchange(b.gather, 0));
      b.gathered = false;
    }
  }
  /// Kinds of slabs: parameters, momenta and, if there is one, the teacher's parameters.
  std::size_t kinds() const { return teacher_.bytes() > 0 ? 3 : 2; }
  float* own_of_kind(std::size_t kind, const Bucket& b) {
    return kind == 0 ? own_parameters(b) : kind == 1 ? own_momenta(b) : own(teacher_, b);
  }
  /// Where the slabs see it.
  float* seen(std::size_t kind, const Bucket& b) {
    return on_device() ? mirror_.f32() + static_cast<std::int64_t>(kind) * own_elems_ + b.packed : own_of_kind(kind, b);
  }
  enum class Mirror : bool { fill, put_back };
  /// Copies all kinds from the device to the mirror, or back.
  void copy_parts(Mirror mirror);
  void measure_down_to(std::size_t bucket);
  void measure_arrived();
  void know_norms_down_to(std::size_t bucket);
  std::vector<float> whole(float* (FlatState::*part_of)(const Bucket&) const);
  void wait(Phase phase, comm::Stream::Ticket ticket);
  void settle() {
    stream_.wait_all();
    for (auto& b : buckets_) b.gather = b.sum = 0;
  }
  void normalize_rows(float tolerance);
  void finish_update();
  /// After all parameters have changed.
  void next_version() {
    ++version_;
    for (auto& b : buckets_) b.measured = false;
  }

  const comm::Communicator* comm_;
  const nn::ParameterTable* table_;
  Phases* phases_;
  Sharding sharding_;
  DType wire_;  ///< type of gradients in messages
  device::Queue queue_;
  comm::BlockCommunicator group_, replicas_, norms_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;
  std::int64_t own_elems_ = 0;
  Optimizer optimizer_;
  /// Buckets from these on are complete on this rank; summed, with own norms; with norms summed over the group.
  std::size_t closed_ = 0, measured_ = 0, known_ = 0;
  device::Buffer parameters_, gradients_, own_gradients_, momenta_, teacher_;
  Which which_ = Which::student;
  device::Buffer parameter_slots_[2], gradient_slots_[2];
  device::PinnedBuffer mirror_;  ///< device: host copies of the own parts, kind by kind; made by slabs()
  std::uint64_t version_ = 1;
  Sums sums_ = Sums::yes;
  double exposed_ms_ = 0;
  const double* known_squares_ = nullptr;
  comm::Stream stream_;  // last: its thread uses everything above
};

}  // namespace seer::train
