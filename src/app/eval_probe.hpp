// SPDX-License-Identifier: Apache-2.0
// What the tasks of `eval` that fit a classifier on a table of features share: where the features come from, how many
// training images, and how the result is printed.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "eval_sets.hpp"
#include "seer/eval/examples.hpp"

namespace seer::app {

struct ProbeChoices {
  EvalSets sets;
  std::string scores;
  eval::Sizes sizes;
  bool json = false;
};
void add_probe_choices(CLI::App& command, ProbeChoices& choices);

/// How the figures came about, printed beside them.
struct ProbeText {
  std::string task, protocol, selection;
  std::string deviation = "of the sample of draws (divided by their number less one)";
  std::string parameter = "c";                             ///< name of what was chosen
  std::string limit = "ended at the limit of iterations";  ///< what fits that did not converge did
};
/// "1" or "0.01 to 1000 (11 values)".
std::string grid_text(const std::vector<double>& values);

/// Collective. Reads or computes the two tables, calls `probe` for each of their features, and prints the rows.
/// Error(input), agreed: options that do not go together.
int run_probe(const comm::Communicator& world, const ProbeChoices& choices, const ProbeText& text,
              const std::function<std::vector<eval::ProbeRow>(eval::ExamplePair& pair)>& probe);

}  // namespace seer::app
