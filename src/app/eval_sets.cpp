// SPDX-License-Identifier: Apache-2.0
#include "eval_sets.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "seer/base/error.hpp"

namespace seer::app {

void add_sets(CLI::App& command, EvalSets& sets, int most_weights) {
  command
      .add_option("weights", sets.weights,
                  most_weights == 1 ? "Weights file, checkpoint folder or run folder (its newest checkpoint)"
                                    : "Weights files, checkpoint folders or run folders (their newest checkpoint)")
      ->expected(0, most_weights)
      ->default_str("");
  command.add_option("--train", sets.train, "Labelled shards to learn from: folder, glob or list");
  command.add_option("--test", sets.test, "Labelled shards to test on");
  command.add_option("--train-features", sets.train_features, "Instead: a file of `seer features`");
  command.add_option("--test-features", sets.test_features, "Instead: a file of `seer features`");
}

void check_sets(const EvalSets& sets, const std::string& task, bool weights_needed) {
  const bool shards = !sets.weights.empty() || !sets.train.empty() || !sets.test.empty();
  if (sets.are_files() && (sets.train_features.empty() || sets.test_features.empty() || shards))
    throw Error(ExitCode::input,
                "--train-features and --test-features must be given together, without weights, --train and --test");
  if (sets.are_files() && sets.choices != EvalChoices())
    throw Error(ExitCode::input,
                "--train-features and --test-features are taken as they are: --features, --resize, --crop, --whole, "
                "--squash, --batch, --device and --recalibrate-batchnorm have no effect on them",
                "leave these options out, or give them to seer features");
  if (!sets.are_files() && (sets.train.empty() || sets.test.empty() || (weights_needed && sets.weights.empty())))
    throw Error(
        ExitCode::input,
        fmt::format("eval {} needs weights, --train and --test shards, or --train-features and --test-features", task));
}

void add_subset(CLI::App& command, data::SubsetChoice& subset, std::int64_t& draws) {
  auto* const per_class =
      command.add_option("--per-class", subset.per_class, "Learn only from this many images of each class")
          ->check(CLI::PositiveNumber)
          ->type_name("N")
          ->default_str("");
  command.add_option("--fraction", subset.fraction, "Learn only from this part of each class's images")
      ->check(CLI::Range(1e-9, 1.0))
      ->excludes(per_class);
  command.add_option("--draws", draws, "Repeat that with other images; prints mean and standard deviation")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
}

void check_draws(std::int64_t draws, bool all_images) {
  if (draws > 1 && all_images)
    throw Error(ExitCode::input, "--draws without --per-class or --fraction: all draws would be the same",
                "say how many images to draw");
}

std::pair<data::DataSet, data::DataSet> open_sets(const comm::Communicator& world, const EvalSets& sets) {
  auto train = data::DataSet::open(sets.train, world), test = data::DataSet::open(sets.test, world);
  comm::agree(world, "labels", [&] {
    for (const auto& [set, path] : {std::pair(&train, &sets.train), std::pair(&test, &sets.test)})
      if (!set->has_labels())
        throw Error(ExitCode::file, fmt::format("{} has no labels", *path), "pack it with --labels folder");
  });
  return {std::move(train), std::move(test)};
}

std::pair<eval::FeatureTable, eval::FeatureTable> read_tables(const comm::Communicator& world, const EvalSets& sets) {
  auto train = eval::read_features(world, sets.train_features), test = eval::read_features(world, sets.test_features);
  comm::agree(world, "comparing the tables",
              [&] { eval::require_alike(train.info, sets.train_features, test.info, sets.test_features); });
  return {std::move(train), std::move(test)};
}

}  // namespace seer::app
