// SPDX-License-Identifier: Apache-2.0
// A training method: the heads on the trunk, the loss of their outputs, and the state of that loss. Each method is one
// file in src/method/methods that defines a Kind named like the file; CMake lists the files.
#pragma once

#include <fmt/format.h>

#include <algorithm>
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

/// A number to log with an update.
struct Figure {
  std::string name;
  double value = 0;
};

/// The arguments for making a method. All of them outlive the method.
struct Parts {
  const config::Config& config;
  comm::BlockCommunicator& ranks;  ///< all ranks
  const nn::Heads& heads;          ///< made by Kind::heads
  device::Queue queue;             ///< computes the updates
  std::int64_t images = 0;         ///< per batch on this rank
  std::int64_t crops = 0;          ///< per image
};

/// One update, after the forward pass. In all tensors, row = crop * images + image.
struct Step {
  const nn::Context& context;  ///< holds the parameters of the last head's last segment
  const data::Batch& batch;
  std::int64_t update = 0;                  ///< counts from 0
  double gradient_scale = 1;                ///< factor on the gradient (loss scaling)
  std::span<const device::Tensor> outputs;  ///< one per head
  /// Output of the teacher's last head for the crops of the first size, in batch order; empty without a teacher.
  device::Tensor teacher;
  device::Tensor d_output;  ///< to be written: the gradient of the last head's output
};

/// This rank's part of a loss.
struct Share {
  double loss = 0;           ///< the global loss is the SUM over ranks
  std::vector<double> sums;  ///< input of figures(), after they are summed over ranks
};

class Method {
 public:
  virtual ~Method() = default;

  /// Called once for each batch, before the forward pass: may change its pixels in place, on the queue.
  virtual void prepare(device::Queue& /*queue*/, const data::Batch& /*batch*/, std::int64_t /*update*/) {}
  /// Collective. Writes to d_output the gradient of the global mean loss times gradient_scale. It is already divided by
  /// the number of ranks, since gradients are summed. The method's state does not change before accept(), so the call
  /// may be repeated. The next call overwrites the result.
  virtual const Share& loss(const Step& step) = 0;
  /// The update was applied: the method's state may change.
  virtual void accept() {}

  /// If there is a teacher, or averaged weights: their momentum after update `update` (from 0) of a run of `updates`.
  virtual double teacher_momentum(std::int64_t /*update*/, std::int64_t /*updates*/) const { return 1; }

  /// Computes the figures from Share::sums, summed over ranks.
  virtual std::vector<Figure> figures(std::span<const double>) const { return {}; }
  /// Takes the completed updates (ascending) and the mean loss. Returns a warning if learning seems to have failed.
  virtual std::optional<std::string> watch(std::int64_t, double) { return {}; }

  /// Adds the state that a checkpoint must hold. Collective; the same on all ranks.
  virtual void save(checkpoint::NamedState&) const {}
  /// Restores that state, on any number of ranks, after so many completed updates. Error(file) if it does not fit.
  virtual void restore(const checkpoint::NamedState&, std::int64_t) {}

  /// Memory that the method holds, without what it borrows during an update.
  virtual std::size_t bytes() const { return 0; }
  /// For planning memory: sets the state's sizes to those after many updates.
  virtual void assume_filled() {}
};

/// Collects warnings about settings that are allowed but probably a mistake.
struct Doubts {
  const std::int64_t updates;  ///< of the run
  std::vector<std::string> lines = {};

  void when(bool doubtful, const char* key, const auto& value, const std::string& why) {
    if (doubtful) lines.push_back(fmt::format("{} = {}: {}", key, value, why));
  }
  /// Warns if the run ends before the setting has an effect, which begins after `update` completed updates.
  void never(const char* key, std::int64_t value, std::int64_t update, const char* what) {
    when(update > updates, key, value, fmt::format("{}, for the run has {} updates", what, updates));
  }
  /// For methods that have none.
  void prototypes(const config::Config& config) {
    const auto count = config.head.prototypes;
    when(count != config::Head().prototypes, "head.prototypes", count, "without effect, for this method has none");
  }
};

template <class M>
std::unique_ptr<Method> make(const Parts& parts) {
  return std::make_unique<M>(parts);
}

struct Kind {
  const char* name;  ///< the value of method.kind
  nn::MakeHeads (*heads)(const config::Config& config);
  /// Error(input), agreed, for impossible settings.
  std::unique_ptr<Method> (*make)(const Parts& parts);
  /// Warns of settings that are allowed but probably not intended, with this number of images in the data set.
  void (*doubts)(const config::Config& config, std::int64_t images, Doubts& out);
  /// The teacher is a second set of parameters and running statistics, for the trunk and the first `teacher_heads`
  /// heads. It starts equal to the student, follows it with a momentum, and uses batch statistics. Negative: none.
  int teacher_heads = -1;
  bool reads_labels = false;  ///< needs Batch::targets
  /// Sets how the optimizer treats the parameters. Error(input), agreed. Null: as they are registered.
  void (*treat)(const config::Config& config, nn::Model& model) = nullptr;
  /// Whether a run holds averaged weights and running statistics: a second set that only follows the first, takes no
  /// part in training, and is what tests and readers of checkpoints use. Null: never.
  bool (*averages)(const config::Config& config) = nullptr;
};

/// The kind that method.kind names; Error(input), agreed, if there is none.
const Kind& kind(const config::Config& config);
inline bool averages(const config::Config& config) {
  const auto asked = kind(config).averages;
  return asked != nullptr && asked(config);
}
/// Trunk and heads, treated as the method and [continue] say.
inline nn::Model make_model(const config::Config& config) {
  const auto& of = kind(config);
  nn::Model model(config.model, of.heads(config));
  if (of.treat != nullptr) of.treat(config, model);
  if (!config.model.init_from.empty()) {
    model.treat([&, heads = model.trunk().segment_begins().back()](nn::Parameter& p) {
      if (p.offset >= heads) return;
      p.treatment.frozen_updates = std::max(p.treatment.frozen_updates, config.continuing.freeze_trunk_updates);
      p.treatment.ramp_updates = config.continuing.ramp_updates;
    });
  }
  return model;
}

}  // namespace seer::method
