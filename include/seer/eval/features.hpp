// SPDX-License-Identifier: Apache-2.0
// Features of images by a trained (or freshly initialised) model: trunk or head, running statistics, no augmentation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "seer/comm/communicator.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/weights/weights.hpp"

namespace seer::eval {

enum class Layer {
  trunk,  ///< the average-pooled output of the last stage
  head,   ///< the head's L2-normalised embedding
};

class FeatureExtractor {
 public:
  /// Error(file) where a tensor of the model is missing or of another shape, naming the first; Error(input) for
  /// Layer::head without a head.
  FeatureExtractor(const weights::Weights& weights, Layer layer, const std::string& source);
  /// Starting values of method.md 1.3 and 2: equal on all ranks.
  FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed, Layer layer);
  FeatureExtractor(FeatureExtractor&&) noexcept;
  FeatureExtractor& operator=(FeatureExtractor&&) noexcept;
  ~FeatureExtractor();

  /// Collective: one rank reads the file (weights, checkpoint folder, or a run folder, of which the newest checkpoint
  /// is taken), all get it. Images are then normalised as in the checkpoint's run, whatever the options say. Errors are
  /// agreed.
  static FeatureExtractor load(const comm::Communicator& comm, const std::string& path, Layer layer);

  /// "auto", "host" or "device", as parallel.device; auto where nothing is said. Before the first of what follows.
  void compute_on(const std::string& device);

  /// Collective. Estimates the running statistics anew at the size of evaluation (training mixes those of two crop
  /// sizes, method.md 4.3): the mean over batches of batch mean and unbiased batch variance, each layer fed with batch
  /// statistics below it, as torch.optim.swa_utils.update_bn. `images` are drawn evenly from the whole data set, in
  /// batches of max(options.batch, ranks) over all ranks: the same for any number of ranks. Only the layers that
  /// features pass through are touched.
  void recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                   const data::EvalOptions& options);

  /// Rank r computes a contiguous slice of the data set, batch by batch, and hands each to `sink`; nothing is kept.
  /// Collective only in that errors are agreed at the end. Returns how many images of all ranks did not decode.
  using Sink = std::function<void(const FeatureRows&)>;
  std::int64_t run(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                   const Sink& sink);
  /// The same, kept.
  FeatureTable table(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options);

  FeatureInfo info(const data::DataSet& data, const data::EvalOptions& options) const;
  std::int64_t dimension() const;
  const std::string& source() const;
  const config::Model& model() const;
  const config::Head& head() const;
  /// Running statistics, for tests: one block laid out as nn::Model::buffers().
  const float* buffers() const;

 private:
  struct Impl;
  explicit FeatureExtractor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Pixels squashed to side x side, the mean image of the whole set NOT yet removed: k-NN's floor. Collective as run().
FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options);

/// "train-00000.h5 and 3 more shards"
std::string describe(const data::DataSet& data);

}  // namespace seer::eval
