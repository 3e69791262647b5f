// SPDX-License-Identifier: Apache-2.0
// seer eval TASK: measures how good features are.
#include <CLI/CLI.hpp>
#include <memory>

#include "eval_knn.hpp"
#include "seer/app/command.hpp"

namespace seer::app {

Run add_eval(CLI::App& command) {
  command.require_subcommand(1);
  auto* knn = command.add_subcommand("knn", "Weighted k-nearest-neighbour classification of labelled images");
  auto run_knn = add_eval_knn(*knn);
  return [run_knn](const comm::Communicator& world) { return run_knn(world); };
}

}  // namespace seer::app
