// SPDX-License-Identifier: Apache-2.0
// A grid of linear classifiers that are trained at once on the same batches (method.md 8.4). All heads of one feature
// and normalisation are one wide matrix product. Ranks divide the heads, not the batch: each holds some heads of the
// grid and trains them on whole batches, so gradients need no sums over ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/config/probe.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/h5/file.hpp"

namespace seer::eval {

/// One classifier.
struct ProbeHead {
  std::size_t feature = 0;  ///< index of its columns
  bool batchnorm = false;
  double rate = 0, decay = 0;
  std::int64_t width = 0;  ///< of the feature
};

/// All heads: features x BatchNorm x rates x decays, in this order.
std::vector<ProbeHead> probe_heads(const config::ProbeProtocol& protocol, std::span<const FeatureColumns> columns);
/// The first head of rank `rank` of `ranks`: ranks get consecutive heads of about the same total width.
std::size_t first_head(std::span<const ProbeHead> heads, int rank, int ranks);

/// What is right for the rows of a batch: one class each, or [rows, classes] 1 present, 0 absent, -1 left out.
struct ProbeTruth {
  std::vector<std::int32_t> labels;
  std::vector<std::int8_t> several;  ///< empty where each row has one class
};

/// A linear function of a feature: scores = weight x + bias. BatchNorm is part of it.
struct LinearHead {
  std::vector<float> weight, bias;  ///< [classes, width], [classes]
};

class ProbeTrainer {
 public:
  /// Holds heads [begin, end) of the grid.
  ProbeTrainer(config::ProbeProtocol protocol, std::vector<ProbeHead> heads, std::size_t begin, std::size_t end,
               std::vector<FeatureColumns> columns, std::int64_t classes, std::uint64_t seed);
  ~ProbeTrainer();
  ProbeTrainer(ProbeTrainer&&) noexcept;

  /// One update of the held heads. values [rows, dimension of all features]. factor: of the rates, without batch / 256.
  /// Returns the losses of the held heads before the update; those of a head that diverged are not finite.
  std::vector<double> update(std::span<const float> values, const ProbeTruth& truth, std::int64_t update,
                             double factor);
  /// Calls use(head, scores [rows, classes]) for each of these heads that is held.
  void scores(std::span<const float> values, std::span<const std::size_t> heads,
              const std::function<void(std::size_t head, std::span<const float> scores)>& use);
  /// Not collective. A held head.
  LinearHead head(std::size_t head);
  bool holds(std::size_t head) const { return head >= begin_ && head < end_; }

  /// Creates the data sets of all heads in `file` and writes the held ones. Collective if the file is.
  void save(h5::File& file, bool root);
  /// Not collective: reads the held heads.
  void load(const h5::File& file);
  /// Bytes of parameters, moments and working memory.
  std::int64_t bytes() const;

 private:
  struct Stack;
  struct Scoring;
  void make_inputs(std::span<const float> values, bool learns);
  const float* input_of(const ProbeHead& head) const;
  const Stack& stack_of(std::size_t head) const;
  /// Of heads [begin, end) of a stack; valid until the next call.
  Scoring scoring_of(const Stack& stack, std::size_t begin, std::size_t end);
  struct Array;
  std::vector<Array> arrays() const;

  config::ProbeProtocol protocol_;
  std::vector<ProbeHead> heads_;
  std::size_t begin_, end_;
  std::vector<FeatureColumns> columns_;
  std::int64_t classes_;
  std::unique_ptr<dnn::Backend> dnn_;
  std::vector<Stack> stacks_;
  std::vector<std::vector<double>> running_;            ///< of each feature: mean and variance; empty: no head
  std::vector<std::vector<float>> plain_, normalised_;  ///< of each feature: the rows of a batch
  std::vector<float> products_, d_weight_, effective_, effective_bias_;
};

}  // namespace seer::eval
