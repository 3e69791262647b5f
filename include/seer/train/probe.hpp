// SPDX-License-Identifier: Apache-2.0
// Where a number goes bad first. After a sum over ranks everybody has the NaN of one; so each rank looks at its own
// numbers at the last moment before they meet those of others: the sums of its BatchNorms, the output of its heads, its
// loss, and its gradients, segment by segment. Every rank passes these points in the same order, so the rank with the
// earliest finding is where it began.
//
// Where an update's passes are made twice (guard.replay_every), the points of both are compared by checksum instead.
//
// Nothing waits for a device at these points: what they show is left with the queue, and looked at once the passes are
// over. Only passes that are made twice wait.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/device/tensor.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/nn/model.hpp"

namespace seer::train {

struct Finding {
  std::int64_t order = 0;  ///< the point's, the same on all ranks
  std::string what;        ///< "the gradient of stem.0.weight"
};

class Probe {
 public:
  enum class Direction : std::uint8_t { forward, backward };

  /// On a planned queue there are no values to look at. `most_gradient`: larger ones of several ranks may have an
  /// infinite sum.
  Probe(const nn::Model& model, float most_gradient, const device::Queue& queue);

  /// An update begins, whose passes are made twice or once.
  void begin(bool twice);
  /// The first of two passes is over. What is not finite is looked for anew, as only the second one counts.
  void begin_second_pass();
  bool second_pass() const { return pass_ == 1; }

  /// What the passes are at.
  void enter(Direction direction, std::size_t segment);
  /// The points.
  void statistics(device::Queue& queue, std::span<const double> own);
  void output(device::Queue& queue, const device::Tensor& own);
  void loss(double own);
  /// All of the segment's, which begin at `own`.
  void gradients(device::Queue& queue, std::size_t segment, const float* own);

  /// Waits for the queue, before what follows is asked.
  void settle(device::Queue& queue);
  /// The first point of the pass that counts with a number that is not finite.
  const std::optional<Finding>& not_finite();
  /// Whether the sums over ranks of this pass' gradients are sure to be finite, as far as this rank can tell.
  bool sums_are_safe() const { return safe_; }
  /// Whether that point lies no later than the loss.
  bool before_loss() { return not_finite() && not_finite_->order <= loss_order_; }
  /// The first point at which the two passes differ.
  std::optional<Finding> difference() const;

 private:
  struct Digest {
    std::uint64_t checksum = 0;
    std::string what;
  };
  /// A point that was passed and whose numbers have not been looked at.
  struct Passed {
    enum class Kind : std::uint8_t { statistics, output, gradients } kind = Kind::statistics;
    std::int64_t order = 0;
    Direction direction = Direction::forward;
    std::size_t segment = 0;
    std::span<const double> values;  ///< sums of BatchNorms
  };
  /// A segment's tensors.
  struct Tensors {
    std::size_t first = 0, last = 0;
    kernels::FlatRanges ranges;  ///< relative to the segment's begin
  };
  void pass(Passed::Kind kind, std::span<const double> values = {});
  void begin_pass(int pass);
  void digest(device::Queue& queue, const void* values, std::size_t bytes, const std::string& what);
  std::span<const double> copied(device::Queue& queue, std::span<const double> own);
  bool gradients_are_safe() const;
  /// Nothing, or what is not finite there.
  std::optional<std::string> wrong_at(const Passed& point) const;
  std::string at_statistics(Direction direction, std::size_t segment) const;
  std::string name_of(std::size_t segment) const;
  /// Whether the sum of a tensor's squares tells whether an element is above the limit.
  bool limit_is_of_range() const { return most_gradient_ > 1e30F; }

  const nn::ParameterTable* table_;
  std::vector<std::int64_t> begins_;
  float most_gradient_;
  bool planned_, twice_ = false, safe_ = true;
  int pass_ = 0;
  Direction direction_ = Direction::forward;
  std::size_t segment_ = 0;
  std::int64_t order_ = 0, loss_order_ = 0;
  std::optional<Finding> not_finite_;
  std::vector<Digest> digests_[2];
  std::vector<Passed> passed_;
  std::vector<device::PinnedBuffer> pages_;  ///< a device's sums of BatchNorms; kept from update to update
  std::size_t page_ = 0, used_bytes_ = 0;    ///< the page that is being filled
  std::vector<char> copied_;
  std::vector<Tensors> tensors_;
  device::Mirrored<double> squares_;       ///< squared norm of every tensor's own gradient
  device::Mirrored<std::int64_t> places_;  ///< of numbers too large: in the output, in the gradients of each segment
};

/// Where something began.
struct Culprit {
  int rank = -1;  ///< negative: no single one
  std::string host, what;
  std::vector<std::uint64_t> images;  ///< indices in the data set of that rank's part of the batch
};

/// Collective: those whose finding comes first; nobody, where there is none.
std::vector<Culprit> earliest(const comm::Communicator& comm, const std::optional<Finding>& mine,
                              const std::vector<std::uint64_t>& images);

}  // namespace seer::train
