// SPDX-License-Identifier: Apache-2.0
// seer bench probe: what a grid of linear classifiers costs beside the forward passes that make its features.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/eval/probe.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string config, features = "trunk,res5:2x1,res4:2x1", protocol = "grid", device = "auto";
  std::vector<std::string> set;
  std::int64_t classes = 1000, batch = 32, global_batch = 0, size = 224, updates = 5;
  bool json = false;
};

/// Of the slowest rank.
double median(std::vector<double> values, const comm::Communicator& world) {
  std::ranges::sort(values);
  return world.all_reduce(values[values.size() / 2], comm::Op::max);
}

int run(const Options& o, const comm::Communicator& world) {
  const auto config = load_config(world, o.config, o.set);
  auto protocol = config::probe_protocol(o.protocol);
  const auto wanted = o.global_batch > 0 ? o.global_batch : protocol.batch;
  const auto passes = std::max<std::int64_t>(1, wanted / (o.batch * world.size()));  // of each rank, for an update
  protocol.batch = passes * o.batch * world.size();
  std::optional<eval::FeatureExtractor> made;
  comm::agree(world, "making the network", [&] {
    made.emplace(config.model, config::Head{.dims = {}, .batchnorm = false, .prototypes = 0}, 0,
                 eval::parse_features(o.features), o.device);
  });
  auto& extractor = *made;
  std::vector<float> pixels(static_cast<std::size_t>(o.batch * o.size * o.size * 3));
  Random random(static_cast<std::uint64_t>(world.rank()), Purpose::test);
  for (auto& pixel : pixels) pixel = static_cast<float>(random.uniform(-2, 2));
  data::EvalBatch batch;
  batch.images = o.batch;
  batch.pixels = {.data = pixels.data(), .shape = {o.batch, o.size, o.size, 3}};
  batch.indices.resize(static_cast<std::size_t>(o.batch));
  std::vector<eval::FeatureColumns> columns;
  for (const auto& feature : eval::parse_features(o.features)) {
    const eval::FeatureExtractor alone(config.model, {.dims = {}, .batchnorm = false, .prototypes = 0}, 0, {feature});
    const auto begin = columns.empty() ? 0 : columns.back().begin + columns.back().width;
    columns.push_back({.feature = feature.text, .begin = begin, .width = alone.dimension(o.size), .map = {}});
  }
  const auto heads = eval::probe_heads(protocol, columns);
  eval::ProbeTrainer trainer(protocol, heads, eval::first_head(heads, world.rank(), world.size()),
                             eval::first_head(heads, world.rank() + 1, world.size()), columns, o.classes, 0);
  eval::ProbeTruth truth;
  for (std::int64_t i = 0; i < protocol.batch; ++i) truth.labels.push_back(static_cast<std::int32_t>(i % o.classes));
  const auto dimension = static_cast<std::size_t>(columns.back().begin + columns.back().width);
  std::vector<double> forward_ms, both_ms;
  for (std::int64_t t = -2; t < o.updates; ++t) {  // the first two warm up
    world.barrier();
    const Clock clock;
    std::vector<float> all(static_cast<std::size_t>(protocol.batch) * dimension, 0.0F);
    auto at = all.begin() + static_cast<std::ptrdiff_t>(dimension) * passes * o.batch * world.rank();
    for (std::int64_t pass = 0; pass < passes; ++pass) at = std::ranges::copy(extractor.rows(batch), at).out;
    const double forward = clock.ms();
    world.all_reduce(std::span(all));
    trainer.update(all, truth, t + 2, 1e-3);
    if (t < 0) continue;
    forward_ms.push_back(forward);
    both_ms.push_back(clock.ms());
  }
  const double forward = median(forward_ms, world), both = median(both_ms, world);
  if (!world.is_root()) return 0;
  if (o.json) {
    fmt::print("{}\n", nlohmann::json{{"heads", heads.size()},
                                      {"dimension", dimension},
                                      {"classes", o.classes},
                                      {"batch", protocol.batch},
                                      {"forward_ms", forward},
                                      {"with_heads_ms", both},
                                      {"ratio", both / forward},
                                      {"head_bytes", trainer.bytes()}}
                           .dump());
    return 0;
  }
  fmt::print("{} heads of {} classes on {} features ({} values), batch {} on {} ranks\n", heads.size(), o.classes,
             columns.size(), dimension, protocol.batch, world.size());
  fmt::print(
      "forward pass        {:9.1f} ms\nwith all heads      {:9.1f} ms   {:.2f} times\nmemory of the heads {:9.1f} "
      "MiB\n",
      forward, both, both / forward, static_cast<double>(trainer.bytes()) / 1048576);
  return 0;
}

}  // namespace

Run add_bench_probe(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("config", options->config, "Configuration whose model makes the features")->default_str("");
  add_set(command, options->set);
  command.add_option("--features", options->features, "Outputs of the network, as in seer eval linear");
  command.add_option("--protocol", options->protocol, "Whose grid, as in seer eval linear");
  command.add_option("--classes", options->classes, "Classes")->check(CLI::Range(2, 1 << 20));
  command.add_option("--batch", options->batch, "Images of a forward pass of a rank")->check(CLI::Range(1, 65536));
  command.add_option("--global-batch", options->global_batch, "Images of an update, of all ranks; 0: the protocol's")
      ->check(CLI::Range(0, 1 << 20));
  command.add_option("--size", options->size, "Pixels of a side")->check(CLI::Range(32, 4096));
  command.add_option("--updates", options->updates, "Updates to measure")->check(CLI::Range(1, 100000));
  command.add_option("--device", options->device, "Where the trunk computes; the heads are on the host")
      ->check(CLI::IsMember({"auto", "host", "device"}));
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
