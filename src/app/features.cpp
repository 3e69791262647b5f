// SPDX-License-Identifier: Apache-2.0
// seer features: weights + shards -> one HDF5 table of features, or maps.
#include "seer/eval/features.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string weights, shards, out, recalibrate_from, map;
  EvalChoices choices;
};

int run(const Options& options, const comm::Communicator& world) {
  refuse_misleading(options.out, "HDF5");
  auto extractor = eval::FeatureExtractor::load(world, options.weights, eval::parse_features(options.choices.features),
                                                options.choices.device);
  const auto data = data::DataSet::open(options.shards, world);
  const auto reading = reading_of(options.choices);
  if (options.choices.recalibrate > 0) {
    const auto& from = options.recalibrate_from.empty() ? options.shards : options.recalibrate_from;
    extractor.recalibrate(world, data::DataSet::open(from, world), options.choices.recalibrate, reading);
  }
  const Clock clock;
  const auto info = extractor.info(data, reading);
  eval::FeatureFileWriter file(world, options.out, info);
  const auto bad = extractor.run(world, data, reading, [&](const eval::FeatureTable& rows) { file.write(rows); });
  file.close();
  if (bad > 0)
    log::warn(fmt::format("{} of {} images did not decode; their rows are marked in /bad", bad, data.images()));
  log::info(fmt::format("{}: {} features of {} dimensions ({}) of {} by {}, {:.1f} images/s", options.out,
                        data.images(), info.dimension, info.layer, eval::describe(data), extractor.source(),
                        static_cast<double>(data.images()) / clock.seconds()));
  return 0;
}

}  // namespace

Run add_features(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command
      .add_option("weights", options->weights, "Weights file, checkpoint folder, or run folder (its newest checkpoint)")
      ->required();
  command.add_option("shards", options->shards, "Shards: folder, glob or comma-separated list")->required();
  command
      .add_option("-o,--output", options->out,
                  "HDF5 file to write: /features /labels /index /checksum /bad; of a map /map [n, h, w, c]")
      ->required();
  add_eval_choices(command, options->choices);
  command.add_option("--map", options->map,
                     "Write the whole map of an output, such as res5: --features res5:map. With\n"
                     "--features, beside these");
  command
      .add_option(
          "--recalibrate-from", options->recalibrate_from,
          "Shards that --recalibrate-batchnorm takes its images from (default: those of the features). Tables that "
          "are compared need the same")
      ->needs("--recalibrate-batchnorm");
  return [options, given = command.get_option("--features")](const comm::Communicator& world) {
    auto& features = options->choices.features;
    if (options->map.find(',') != std::string::npos)
      throw Error(ExitCode::input, fmt::format("--map {}: a file holds one map", options->map),
                  "write a file for each map")
          .as_agreed();
    if (!options->map.empty()) features = (given->count() > 0 ? features + "," : "") + options->map + ":map";
    return run(*options, world);
  };
}

}  // namespace seer::app
