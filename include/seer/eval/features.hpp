// SPDX-License-Identifier: Apache-2.0
// Computes features of images with a trained (or freshly initialised) model: outputs of the trunk or the head, pooled
// as eval/feature.hpp says. BatchNorm uses running statistics; no augmentation.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/eval_reader.hpp"
#include "seer/data/shard.hpp"
#include "seer/eval/feature.hpp"
#include "seer/eval/feature_table.hpp"
#include "seer/weights/weights.hpp"

namespace seer::eval {

/// The network of a run at one moment. The blocks, on the host, have the layout of the tables of an nn::Model with this
/// head; they may be longer, since the head's prototypes and other heads come last.
struct LiveNetwork {
  const config::Model* model = nullptr;
  const config::Head* head = nullptr;
  std::span<const float> parameters, buffers;
  const config::Augment* normalisation = nullptr;  ///< mean and std of the run's images
};

/// Copies share the model.
class FeatureExtractor {
 public:
  static std::vector<Feature> pooled() { return {parse_feature("trunk")}; }

  /// `device`: "auto", "host" or "device", as parallel.device. Error(file) names the first tensor that is missing or
  /// has a wrong shape. Error(input): a feature of an output that the network does not have; lists those of its trunk.
  FeatureExtractor(const weights::Weights& weights, const std::string& source, std::vector<Feature> features = pooled(),
                   const std::string& device = "auto");
  /// Initialises the model as in method.md 1.3 and 2, equally on all ranks.
  FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed,
                   std::vector<Feature> features = pooled(), const std::string& device = "auto");
  /// Copies the blocks. `source` names the network in messages and tables.
  FeatureExtractor(const LiveNetwork& network, const std::string& source, std::vector<Feature> features = pooled(),
                   const std::string& device = "auto");
  /// The same architecture as initialised.
  FeatureExtractor untrained(std::uint64_t seed) const;

  /// Collective. One rank reads `path` (a weights file, a checkpoint folder, or a run folder: its newest checkpoint)
  /// and sends it to all. Images are then normalised as in the checkpoint's run; the normalisation in the options is
  /// ignored. Errors are agreed.
  static FeatureExtractor load(const comm::Communicator& comm, const std::string& path,
                               const std::vector<Feature>& features = pooled(), const std::string& device = "auto");

  /// Collective. Estimates the running statistics again at the evaluation size (training mixes those of two crop sizes,
  /// method.md 4.3): the mean over batches of batch mean and unbiased batch variance. The layers below use batch
  /// statistics, as in torch.optim.swa_utils.update_bn. Draws `images` images evenly from the whole data set, in global
  /// batches of max(options.batch, ranks), so the batches are the same for any number of ranks up to options.batch.
  /// Changes only the layers that features pass through.
  void recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                   const data::EvalOptions& options);

  /// Computes the features of all images: see for_each_batch(). Error(input): a map of whole images, whose sizes
  /// differ.
  std::int64_t run(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                   const Sink& sink);
  /// Does the same and returns the features.
  FeatureTable table(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options);

  /// Not collective. The features of a batch that a reader with this network's normalisation gave. Error(numerics).
  std::vector<float> rows(const data::EvalBatch& batch);
  /// Not collective. The features of one image; none, with a warning in the log, if it does not decode.
  std::vector<float> image(const data::DataSet& data, std::uint64_t index, data::EvalOptions options);

  FeatureInfo info(const data::DataSet& data, const data::EvalOptions& options) const;
  /// Values of a row, for images of side x side pixels: only the width of a map depends on it.
  std::int64_t dimension(std::int64_t side = 224) const;
  const std::string& source() const;
  const config::Model& model() const;
  /// Its mean and std are those of the run's images.
  const config::Augment& normalisation() const;
  /// Running statistics, for tests: one block with the layout of nn::Model::buffers().
  const float* buffers() const;

 private:
  struct Impl;
  explicit FeatureExtractor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

}  // namespace seer::eval
