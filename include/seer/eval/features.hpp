// SPDX-License-Identifier: Apache-2.0
// Computes features of images with a trained (or freshly initialised) model: trunk or head output, BatchNorm with
// running statistics, no augmentation.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

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

/// Copies share the model.
class FeatureExtractor {
 public:
  /// `device`: "auto", "host" or "device", as parallel.device. Error(file) names the first tensor that is missing or
  /// has a wrong shape. Error(input): Layer::head without a head.
  FeatureExtractor(const weights::Weights& weights, Layer layer, const std::string& source,
                   const std::string& device = "auto");
  /// Initialises the model as in method.md 1.3 and 2, equally on all ranks.
  FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed, Layer layer,
                   const std::string& device = "auto");
  /// The same architecture as initialised.
  FeatureExtractor untrained(std::uint64_t seed) const;

  /// Collective. One rank reads `path` (a weights file, a checkpoint folder, or a run folder: its newest checkpoint)
  /// and sends it to all. Images are then normalised as in the checkpoint's run; the normalisation in the options is
  /// ignored. Errors are agreed.
  static FeatureExtractor load(const comm::Communicator& comm, const std::string& path, Layer layer,
                               const std::string& device = "auto");

  /// Collective. Estimates the running statistics again at the evaluation size (training mixes those of two crop sizes,
  /// method.md 4.3): the mean over batches of batch mean and unbiased batch variance. The layers below use batch
  /// statistics, as in torch.optim.swa_utils.update_bn. Draws `images` images evenly from the whole data set, in global
  /// batches of max(options.batch, ranks), so the batches are the same for any number of ranks up to options.batch.
  /// Changes only the layers that features pass through.
  void recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                   const data::EvalOptions& options);

  /// Computes the features of all images: see for_each_batch().
  std::int64_t run(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                   const Sink& sink);
  /// Does the same and returns the features.
  FeatureTable table(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options);

  FeatureInfo info(const data::DataSet& data, const data::EvalOptions& options) const;
  std::int64_t dimension() const;
  const std::string& source() const;
  const config::Model& model() const;
  /// Running statistics, for tests: one block with the layout of nn::Model::buffers().
  const float* buffers() const;

 private:
  struct Impl;
  explicit FeatureExtractor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace seer::eval
