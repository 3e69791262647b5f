// SPDX-License-Identifier: Apache-2.0
// What the tasks of `eval` that learn from labels share: where the features of the training and the test set come from,
// and how many training images are taken.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "options.hpp"
#include "seer/data/subset.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::app {

/// Weights with shards of both sets, or two files of features.
struct EvalSets {
  std::vector<std::string> weights;
  std::string train, test, train_features, test_features;
  EvalChoices choices;

  bool are_files() const { return !train_features.empty() || !test_features.empty(); }
};
/// All but `choices`. `most_weights`: how many weights may be given.
void add_sets(CLI::App& command, EvalSets& sets, int most_weights = 1);
/// Error(input): options that do not go together, or are missing.
void check_sets(const EvalSets& sets, const std::string& task, bool weights_needed = true);

/// --per-class, --fraction and --draws.
void add_subset(CLI::App& command, data::SubsetChoice& subset, std::int64_t& draws);
/// Error(input) if there are several draws of all images.
void check_draws(std::int64_t draws, bool all_images);

/// Collective. Opens the shards of both sets. Error(file), agreed: no labels.
std::pair<data::DataSet, data::DataSet> open_sets(const comm::Communicator& world, const EvalSets& sets);
/// Collective. Reads the two files of features. Error(input), agreed: they were not computed alike.
std::pair<eval::FeatureTable, eval::FeatureTable> read_tables(const comm::Communicator& world, const EvalSets& sets);

}  // namespace seer::app
