// SPDX-License-Identifier: Apache-2.0
// Linear evaluation (method.md 8.4): trains a grid of linear classifiers on frozen features, chooses one for each
// feature, and tests the chosen ones.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/probe.hpp"
#include "seer/data/subset.hpp"
#include "seer/eval/features.hpp"
#include "seer/eval/probe.hpp"

namespace seer::eval {

/// The images of a set and their classes, on every rank.
struct LabelledImages {
  std::string name;                  ///< for messages
  std::vector<std::string> classes;  ///< their names; may be empty
  data::Targets targets, ignored;    ///< ignored: of no image where there are none
  std::vector<std::uint8_t> bad;     ///< 1: known not to decode
};

/// Rows of this rank, of some images of a set.
struct ImageRows {
  std::vector<float> values;          ///< [rows, dimension]
  std::vector<std::uint64_t> images;  ///< index in the set
};

/// Where the rows come from. All functions are collective; errors are agreed.
class LinearSource {
 public:
  virtual ~LinearSource() = default;
  const LabelledImages& train() const { return train_; }
  const LabelledImages& test() const { return test_; }
  const std::vector<FeatureColumns>& columns() const { return columns_; }
  const FeatureInfo& info() const { return info_; }

  /// Batches of these training images follow, from this update on. What a batch holds depends on the images, the seed,
  /// the update and the size of the batch alone.
  virtual void begin(std::span<const std::uint64_t> images, std::int64_t batch, std::int64_t update,
                     std::uint64_t seed) = 0;
  /// The next batch, whole, on every rank: values [batch, dimension] and the image of each row.
  virtual void next(ImageRows& out) = 0;
  /// Rows of training images without augmentation. Each image is on one rank.
  virtual ImageRows rows_of(std::span<const std::uint64_t> images) = 0;
  virtual const ImageRows& test_rows() = 0;

 protected:
  LabelledImages train_, test_;
  std::vector<FeatureColumns> columns_;
  FeatureInfo info_;  ///< of the training set
};

/// Rows of two tables, without augmentation. Each rank keeps its slices. Error(numerics): features that are not finite,
/// or equal for all training images. Error(input): tables of other features or recipes.
std::unique_ptr<LinearSource> table_source(const comm::Communicator& comm, FeatureTable train, FeatureTable test);
/// Images of two sets: batches are random crops (area from `scale_low` to 1) of options.crop pixels, half of them
/// mirrored; other rows are of the evaluation's crop. The trunk runs in evaluation mode. Error(input) if the number of
/// ranks does not divide the batch.
std::unique_ptr<LinearSource> shard_source(const comm::Communicator& comm, FeatureExtractor extractor,
                                           data::DataSet train, data::DataSet test, const data::EvalOptions& options,
                                           double scale_low);

struct LinearTask {
  config::ProbeProtocol protocol;
  bool select_on_test = false;   ///< else on a tenth of the training images, which the heads never see
  std::string targets = "auto";  ///< "single", "multi"; auto: multi where images have several classes
  data::SubsetChoice subset;     ///< of the training images; draw i takes subset.seed + i
  std::int64_t draws = 1;
  std::uint64_t seed = 0;                                      ///< of initial weights, batches and the held part
  std::string checkpoint;                                      ///< file from which the same task goes on; "": none
  std::int64_t checkpoint_every = 500;                         ///< updates
  std::string save_head;                                       ///< file for the best head of the last draw; "": none
  std::function<void(std::int64_t update)> after_update = {};  ///< for tests
};

/// In fractions. Those of the other kind of targets stay 0.
struct LinearFigures {
  double top1 = 0, top5 = 0, mean_per_class = 0, all_points = 0, eleven_points = 0;
};

/// A chosen head and what it reached.
struct LinearResult {
  ProbeHead head;
  double chosen_by = 0;  ///< the figure of the images on which it was chosen; 0 if nothing was chosen
  LinearFigures figures;
};

/// The result of each draw for one feature.
struct LinearRow {
  std::string feature;
  std::vector<LinearResult> draws;
};
struct LinearSummary {
  LinearFigures mean, deviation;  ///< over draws; see spread_of()
};
LinearSummary summary_of(const LinearRow& row);

struct LinearReport {
  bool several = false;                 ///< images may have several classes
  std::string selection;                ///< how heads were chosen, in words
  std::size_t heads = 0, diverged = 0;  ///< diverged: of the last draw
  std::int64_t classes = 0, updates = 0;
  std::uint64_t fit_images = 0, held_images = 0;
  std::uint64_t test_images = 0;  ///< that decode
  std::vector<LinearRow> rows;    ///< for each feature
  LinearRow best;                 ///< of all features, chosen in each draw
};

/// Collective. Error(file): labels that cannot be used. Error(input): fewer images than ranks, or too few for a held
/// part. Error(numerics): the chosen head diverged.
LinearReport evaluate_linear(const comm::Communicator& comm, LinearSource& source, const LinearTask& task);

/// Whether a class is present for an image, absent or left out: one row of ProbeTruth::several.
void write_truth(const data::Targets& targets, const data::Targets& ignored, std::size_t image,
                 std::span<std::int8_t> truth);

/// Collective. Writes what the training needs to go on with the same bits after `update` updates. The file is replaced
/// as a whole. `identity` names the task. Error(file).
void save_probe(const comm::Communicator& comm, const std::string& path, const std::string& identity,
                std::int64_t update, ProbeTrainer& trainer);
/// Collective. Returns the updates done; 0 if there is no such file. Error(input): it is of another task.
std::int64_t load_probe(const comm::Communicator& comm, const std::string& path, const std::string& identity,
                        ProbeTrainer& trainer);
/// Not collective. Writes a classifier (docs/formats.md).
void write_head(const std::string& path, const LinearHead& head, const LinearSource& source,
                const std::vector<std::string>& classes, const LinearTask& task, const LinearResult& result);

}  // namespace seer::eval
