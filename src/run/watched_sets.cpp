// SPDX-License-Identifier: Apache-2.0
#include "watched_sets.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <span>

#include "seer/base/error.hpp"
#include "seer/data/source.hpp"
#include "seer/eval/classes.hpp"
#include "seer/eval/knn.hpp"
#include "seer/eval/metrics.hpp"
#include "seer/eval/quality.hpp"
#include "seer/eval/ridge.hpp"
#include "seer/nn/model.hpp"

namespace seer::run {
namespace {

constexpr const char* kPrototypes = "prototypes.weight";

/// watch.images images of data.shards.
data::DataSet watched(const config::Config& config, const comm::Communicator& comm) {
  if (config.data.source != "shards")
    throw Error(ExitCode::input, "watch.every: an evaluation reads images of data.shards",
                "set data.source = \"shards\", or watch.every = 0")
        .as_agreed();
  const auto all = data::DataSet::open(config.data.shards, comm);
  const auto count = std::min(all.images(), static_cast<std::uint64_t>(config.watch.images));
  if (count < static_cast<std::uint64_t>(std::max(2, comm.size())))
    throw Error(ExitCode::input,
                fmt::format("watch.images: {} images for {} ranks; wanted at least 2, and one for each rank", count,
                            comm.size()),
                "raise watch.images, use more images, or set watch.every = 0")
        .as_agreed();
  return eval::evenly(all, count);
}

/// Error(input) at the start of the run instead of at its first evaluation. On the root.
void require_classes(const data::DataSet& set, const std::string& path) {
  std::set<std::int32_t> classes;
  bool several = false;
  const auto targets = set.targets(0, set.images());
  for (std::size_t i = 0; i < targets.images(); ++i) {
    const auto of = targets.of(i);
    several = several || of.size() > 1;
    if (of.size() == 1) classes.insert(of[0]);
  }
  if (classes.empty())
    throw Error(ExitCode::input,
                fmt::format("[watch]: {} {}", path, several ? "has several classes per image" : "has no labels"),
                "k-NN and the probe need images with one class each");
  if (classes.size() < 2)
    throw Error(ExitCode::input, fmt::format("[watch]: all images of {} are of one class", path),
                "k-NN and the probe need images of two classes or more");
}

/// True if the run's blocks hold this network at their beginning.
bool holds(const nn::Model& blocks, const nn::Model& network) {
  const auto in = [](const nn::ParameterTable& all, const nn::ParameterTable& wanted) {
    return std::ranges::all_of(wanted.entries(), [&](const nn::Parameter& p) {
      return std::ranges::any_of(all.entries(), [&](const nn::Parameter& q) {
        return p.name == q.name && p.offset == q.offset && p.shape == q.shape;
      });
    });
  };
  return in(blocks.parameters(), network.parameters()) && in(blocks.buffers(), network.buffers());
}

/// A run's network, with the weights that its tests and the readers of its checkpoints use: what the extractor needs,
/// kept while it copies.
struct Network {
  Network(const config::Config& config, const comm::Communicator& comm, train::Learner& learner)
      : parameters(learner.parameters(train::Learner::Values::tested)), head(config.head) {
    const auto statistics = static_cast<std::size_t>(learner.model().buffers().block_elems());
    const auto* const running = learner.buffers(train::Learner::Values::tested);
    buffers.assign(running, running + statistics);
    comm.broadcast(buffers.data(),
                   statistics * sizeof(float));  // BatchNorm groups have their own; a checkpoint the first's
    head.prototypes = 0;
    // The section [head] of a supervised run may be that of another trunk.
    const bool fits = !head.dims.empty() && head.dims.front() == learner.model().trunk().width();
    if (!fits || !holds(learner.model(), nn::Model(config.model, nn::projection_heads(head)))) head.dims.clear();
    for (const auto& p : learner.model().parameters().entries()) {
      if (p.name != kPrototypes || head.dims.empty() || p.shape.at(1) != head.dims.back()) continue;
      prototypes.assign(parameters.begin() + p.offset, parameters.begin() + p.offset + p.elems);
      prototype_count = p.shape.at(0);
    }
  }

  std::vector<float> parameters, buffers, prototypes;
  std::int64_t prototype_count = 0;
  config::Head head;  ///< no dims: the projection head is not there
};

}  // namespace

Evaluations::Sets::Sets(const config::Config& config, const comm::Communicator& comm)
    : images(watched(config, comm)),
      views(eval::evenly(images, std::max<std::uint64_t>(2, images.images() / kPerView))) {
  const auto& watch = config.watch;
  const auto side = config.crops.front().size;
  reading_.resize = watch.resize > 0 ? watch.resize : side;
  reading_.crop = watch.crop > 0 ? watch.crop : side;
  reading_.threads = static_cast<std::int64_t>(data::reader_threads(config, comm));
  reading_.max_pixels = data::max_pixels(config, images);
  crops_ = {kViews, data::crop_kinds(config).front(), 0};
  if (watch.train.empty() && watch.test.empty()) return;
  if (watch.train.empty() || watch.test.empty())
    throw Error(ExitCode::input, "watch.train and watch.test belong together: one of them is \"\"",
                "give both for k-NN and a linear probe, or neither")
        .as_agreed();
  labelled = {data::DataSet::open(watch.train, comm), data::DataSet::open(watch.test, comm), {}};
  comm::agree(comm, "the labelled sets of [watch]", [&] {
    for (const auto& [set, path] : {std::pair(&labelled->train, &watch.train), std::pair(&labelled->test, &watch.test)})
      if (!set->has_labels())
        throw Error(ExitCode::file, fmt::format("[watch]: {} has no labels", *path), "pack it with --labels");
    const auto &train = labelled->train.classes(), &test = labelled->test.classes();
    labelled->classes = eval::common_classes(train, watch.train, test, watch.test);
    if (!train.empty() && labelled->classes.size() == train.size() + test.size())
      throw Error(ExitCode::input, fmt::format("[watch]: {} has none of the classes of {}", watch.test, watch.train),
                  "test on images of the classes in watch.train; classes are compared by their names");
    if (!comm.is_root()) return;
    require_classes(labelled->train, watch.train);
    require_classes(labelled->test, watch.test);
  });
}

std::string Evaluations::Sets::setting(const config::Config& config) const {
  auto text = fmt::format("{} {}", reading_.resize, reading_.crop);
  const auto add = [&text](const data::DataSet& set) {
    text += fmt::format("; {}", set.images());
    for (const auto& shard : set.shards())
      text += fmt::format(" {} {}", std::filesystem::path(shard.path).filename().string(), shard.images);
  };
  if (!labelled) {
    add(images);
    return text;
  }
  text += fmt::format(" {}", config.watch.k);
  add(labelled->train);
  add(labelled->test);
  return text;
}

double Evaluations::Sets::pixels() const {
  const auto of = [](std::uint64_t count, std::int64_t side) {
    return static_cast<double>(count) * static_cast<double>(side * side);
  };
  const auto centres = images.images() + (labelled ? labelled->train.images() + labelled->test.images() : 0);
  return of(centres, reading_.crop) + of(views.images() * kViews, crops_.kind.size);
}

std::vector<method::Figure> Evaluations::Sets::evaluate(const config::Config& config, const comm::Communicator& comm,
                                                        train::Learner& learner, std::int64_t completed) const {
  std::vector<method::Figure> out;
  const auto name = fmt::format("the network after {} updates", completed);
  std::vector<eval::Feature> features = {eval::parse_feature("trunk")};
  std::optional<eval::PrototypeMeter> prototypes;
  std::optional<eval::FeatureExtractor> extractor;
  {
    const Network network(config, comm, learner);
    if (!network.head.dims.empty()) features.push_back(eval::parse_feature("head"));
    if (network.prototype_count > 0) prototypes.emplace(network.prototypes, network.prototype_count);
    comm::agree(comm, "the network to evaluate", [&] {
      extractor.emplace(
          eval::LiveNetwork{&config.model, &network.head, network.parameters, network.buffers, &config.augment}, name,
          features, config.parallel.device);
    });
  }
  if (labelled) test_with_labels(comm, *extractor, config.watch.k, out);

  const bool head = features.size() > 1;
  std::vector<eval::QualityOptions> options(features.size());
  options.front().lidar = !head;  // of the last feature: it costs d^3 operations
  const auto found = eval::measure_quality(comm, *extractor, images, views, reading_, crops_, options,
                                           prototypes ? &*prototypes : nullptr);
  const auto add = [&](const char* figure, double value) { out.push_back({figure, value}); };
  const auto& trunk = found.front();
  add("watch_rankme", trunk.rankme);
  add("watch_alpha", trunk.alpha);
  add("watch_deviation", trunk.deviation);
  add("watch_uniformity", trunk.uniformity);
  add("watch_alignment", trunk.alignment);
  if (head) add("watch_head_rankme", found.back().rankme);
  add("watch_lidar", found.back().lidar);
  if (prototypes) {
    const auto usage = prototypes->result(comm);
    add("watch_prototype_entropy", usage.entropy);
    add("watch_prototypes_empty", static_cast<double>(usage.empty));
    add("watch_prototype_largest", usage.largest_share);
  }
  return out;
}

void Evaluations::Sets::test_with_labels(const comm::Communicator& comm, eval::FeatureExtractor& extractor,
                                         std::int64_t k, std::vector<method::Figure>& out) const {
  const auto table = [&](const data::DataSet& set) {
    const auto rows = extractor.table(comm, set, reading_);
    auto pooled = eval::only(rows, eval::columns_of(rows.info).front());
    std::vector<std::int32_t> places;  // of this set's classes among those of both
    for (const auto& name : pooled.info.classes)
      places.push_back(
          static_cast<std::int32_t>(std::ranges::find(labelled->classes, name) - labelled->classes.begin()));
    for (auto& label : pooled.labels)
      if (label >= 0 && !places.empty()) label = places.at(static_cast<std::size_t>(label));
    pooled.info.classes = labelled->classes;
    return pooled;
  };
  const auto train = table(labelled->train), test = table(labelled->test);
  eval::KnnOptions knn;
  knn.k = {k};
  const auto report = eval::knn_report(comm, train, test, knn);
  out.push_back({"watch_knn_top1", eval::percent(report.scores.front().top1)});
  out.push_back({"watch_probe_top1", eval::percent(eval::ridge_top1(comm, train, test, report.classes))});
}

}  // namespace seer::run
