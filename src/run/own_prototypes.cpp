// SPDX-License-Identifier: Apache-2.0
#include "own_prototypes.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/session.hpp"
#include "seer/eval/features.hpp"
#include "seer/eval/kmeans.hpp"
#include "seer/train/optimizer.hpp"

namespace seer::run {
namespace {

constexpr std::int64_t kImagesPerPrototype = 64;

/// The images at the training's size, in the middle of their shorter side as evaluations have them.
data::EvalOptions reading_of(const config::Config& config) {
  data::EvalOptions out;
  out.crop = config.crops.front().size;
  out.resize = out.crop * 8 / 7;
  out.max_pixels = config.data.max_pixels;
  out.threads = device::threads();
  return out;
}

}  // namespace

void take_own_prototypes(const config::Config& config, const comm::Communicator& comm, train::Learner& learner) {
  const auto data = data::DataSet::open(config.data.shards, comm);
  const auto all = static_cast<std::int64_t>(data.images()), prototypes = config.head.prototypes;
  // Before the features, which may take long. The schedule refuses what it would refuse afterwards.
  if (prototypes > all)
    throw Error(ExitCode::input,
                fmt::format("head.prototypes = {} with continue.prototypes = \"kmeans\": more than the {} images of "
                            "data.shards",
                            prototypes, all),
                "use fewer prototypes, more images, or continue.prototypes = \"random\"")
        .as_agreed();
  const train::Schedule possible(config.schedule, train::total_updates(config, data.images(), 0));
  const auto wanted = std::min(all, kImagesPerPrototype * prototypes);
  const auto parameters = learner.parameters();
  eval::FeatureExtractor extractor(
      {.model = &config.model,
       .head = &config.head,
       .parameters = parameters,
       .buffers = {learner.buffers(), static_cast<std::size_t>(learner.model().buffers().block_elems())},
       .normalisation = &config.augment},
      "model.init_from", {eval::parse_feature("head")}, config.parallel.device);
  std::vector<std::uint64_t> images;
  for (std::int64_t i = 0; i < wanted; ++i)
    images.push_back(static_cast<std::uint64_t>(all / wanted * i + all % wanted * i / wanted));
  log::info(fmt::format("continue.prototypes = \"kmeans\": embeddings of {} of the {} images", wanted, all));
  auto embeddings = extractor.table(comm, data.subset(std::move(images)), reading_of(config));
  const auto clusters =
      eval::spherical_kmeans(comm, std::move(embeddings.values), embeddings.info.dimension, prototypes);
  learner.replace_prototypes(clusters.centres);
  log::info(fmt::format(
      "{} prototypes by k-means of own embeddings: mean similarity {:.4f} after {} rounds, clusters of {} to {} images",
      prototypes, clusters.similarity, clusters.rounds, clusters.smallest, clusters.largest));
}

}  // namespace seer::run
