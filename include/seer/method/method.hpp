// SPDX-License-Identifier: Apache-2.0
// A training method: the heads on the trunk, the loss of their outputs, and what belongs to it. Each is one file in
// src/method/methods that defines a Kind of the file's name; CMake lists them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/source.hpp"
#include "seer/nn/model.hpp"

namespace seer::method {

/// A number that is logged with an update.
struct Figure {
  std::string name;
  double value = 0;
};

/// What a method is made for. All of it outlives the method.
struct Parts {
  const config::Config& config;
  comm::BlockCommunicator& ranks;  ///< all of them
  const nn::Heads& heads;          ///< as Kind::heads made them
  device::Queue queue;             ///< where updates are computed
  std::int64_t images = 0;         ///< of this rank's part of a batch
  std::int64_t crops = 0;          ///< of an image
};

/// One update, after the forward pass. Rows of all tensors: crop * images + image.
struct Step {
  const nn::Context& context;  ///< with the parameters of the last segment of the last head at hand
  const data::Batch& batch;
  std::int64_t update = 0;                  ///< counts from 0
  double gradient_scale = 1;                ///< of the loss's gradient (loss scaling)
  std::span<const device::Tensor> outputs;  ///< of each head
  /// What the teacher's last head makes of the crops of the first size, in the order of the batch; empty without one.
  device::Tensor teacher;
  device::Tensor d_output;  ///< gradient of the last head's output, to be written
};

/// This rank's part of a loss.
struct Share {
  double loss = 0;           ///< the global loss is the SUM over ranks
  std::vector<double> sums;  ///< what figures are made of, once they are summed over ranks
};

class Method {
 public:
  virtual ~Method() = default;

  /// Collective. d_output becomes the gradient of the global mean loss (already divided by the number of ranks:
  /// gradients are summed) times gradient_scale. Until accept() nothing of the method's state has changed, and it may
  /// be done again. The result is overwritten by the next call.
  virtual const Share& loss(const Step& step) = 0;
  /// The update is taken.
  virtual void accept() {}

  /// Where a teacher is held (Kind::teacher_heads): how much of it stays when it follows the student after an update.
  virtual double teacher_momentum(std::int64_t) const { return 1; }

  /// From the sums over ranks of Share::sums.
  virtual std::vector<Figure> figures(std::span<const double>) const { return {}; }
  /// Looks at the loss of an update (completed ones, ascending; the mean over ranks): a warning, where learning seems
  /// to have failed.
  virtual std::optional<std::string> watch(std::int64_t, double) { return {}; }

  /// The state that a checkpoint is to hold. Collective; the same on all ranks.
  virtual void save(checkpoint::NamedState&) const {}
  /// Takes it back, on any number of ranks; `update`: completed updates. Error(file) where it does not fit.
  virtual void restore(const checkpoint::NamedState&, std::int64_t) {}

  /// Memory that it holds beside what it borrows in an update.
  virtual std::size_t bytes() const { return 0; }
  /// Planned: as after many updates.
  virtual void assume_filled() {}
};

struct Kind {
  const char* name;  ///< the value of method.kind
  nn::MakeHeads (*heads)(const config::Config& config);
  /// Error(input), agreed, for settings that cannot be.
  std::unique_ptr<Method> (*make)(const Parts& parts);
  /// What the run meets, for settings that are allowed and hardly meant: lines "key = value: why".
  std::vector<std::string> (*doubts)(const config::Config& config, std::int64_t images, std::int64_t updates);
  /// The teacher is a second set of parameters and running statistics, of trunk and so many of the heads. It starts as
  /// the student, follows it with a momentum, and runs on batch statistics. Negative: none is held.
  int teacher_heads = -1;
};

/// The kind that method.kind names; Error(input), agreed, where there is none.
const Kind& kind(const config::Config& config);
/// Trunk and heads.
nn::Model make_model(const config::Config& config);

}  // namespace seer::method
