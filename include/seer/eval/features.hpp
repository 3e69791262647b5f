// SPDX-License-Identifier: Apache-2.0
// Computes features of images with a trained (or freshly initialised) model: trunk or head output, BatchNorm with
// running statistics, no augmentation.
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
  /// Error(file) names the first tensor that is missing or has a wrong shape. Error(input): Layer::head without a head.
  FeatureExtractor(const weights::Weights& weights, Layer layer, const std::string& source);
  /// Initialises the model as in method.md 1.3 and 2, equally on all ranks.
  FeatureExtractor(const config::Model& model, const config::Head& head, std::uint64_t seed, Layer layer);
  FeatureExtractor(FeatureExtractor&&) noexcept;
  FeatureExtractor& operator=(FeatureExtractor&&) noexcept;
  ~FeatureExtractor();

  /// Collective. One rank reads `path` (a weights file, a checkpoint folder, or a run folder: its newest checkpoint)
  /// and sends it to all. Images are then normalised as in the checkpoint's run; the normalisation in the options is
  /// ignored. Errors are agreed.
  static FeatureExtractor load(const comm::Communicator& comm, const std::string& path, Layer layer);

  /// "auto" (the default), "host" or "device", as parallel.device. To be called before recalibrate, run and table.
  void compute_on(const std::string& device);

  /// Collective. Estimates the running statistics again at the evaluation size (training mixes those of two crop sizes,
  /// method.md 4.3): the mean over batches of batch mean and unbiased batch variance. The layers below use batch
  /// statistics, as in torch.optim.swa_utils.update_bn. Draws `images` images evenly from the whole data set, in global
  /// batches of max(options.batch, ranks), so the batches are the same for any number of ranks up to options.batch.
  /// Changes only the layers that features pass through.
  void recalibrate(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                   const data::EvalOptions& options);

  /// Each rank computes a contiguous slice of the data set, batch by batch, and passes each batch to `sink`. Nothing is
  /// stored. Collective only at the end, where errors are agreed. Returns how many images of all ranks did not decode.
  using Sink = std::function<void(const FeatureRows&)>;
  std::int64_t run(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                   const Sink& sink);
  /// Does the same and returns the features.
  FeatureTable table(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options);

  FeatureInfo info(const data::DataSet& data, const data::EvalOptions& options) const;
  std::int64_t dimension() const;
  const std::string& source() const;
  const config::Model& model() const;
  const config::Head& head() const;
  /// Running statistics, for tests: one block with the layout of nn::Model::buffers().
  const float* buffers() const;

 private:
  struct Impl;
  explicit FeatureExtractor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Features made of pixels: images resized to side x side. The mean image of the set is NOT yet subtracted. The
/// baseline for k-NN. Collective as run().
FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options);

/// For example "train-00000.h5 and 3 more shards".
std::string describe(const data::DataSet& data);

}  // namespace seer::eval
