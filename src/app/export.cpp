// SPDX-License-Identifier: Apache-2.0
// seer export WEIGHTS_OR_CHECKPOINT OUT.safetensors: what PyTorch's load_state_dict(strict=True) takes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "seer/app/command.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/exchange.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string in, out, names = "torchvision";
};

void export_weights(const Options& options) {
  const auto weights = checkpoint::read_weights(checkpoint::resolve(options.in));
  const auto naming = checkpoint::parse_naming(options.names);
  checkpoint::export_safetensors(options.out, weights, naming);
  if (naming == checkpoint::Naming::vissl && !weights.classifier.empty()) {
    log::info("fc.* is left out: VISSL's trunk has no classifier");
  }
  log::info(fmt::format("{}: {} parameters and {} buffers with {}'s names", options.out, weights.parameters.size(),
                        weights.buffers.size(), options.names));
}

}  // namespace

Run add_export(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("WEIGHTS", options->in, "Weights file, checkpoint folder, or run folder (its newest checkpoint)")
      ->required();
  command.add_option("OUT.safetensors", options->out, "File to write")->required();
  command.add_option("--names", options->names, "Names of the trunk's tensors")
      ->check(CLI::IsMember({"torchvision", "vissl"}))
      ->capture_default_str();
  return [options](const comm::Communicator& world) {
    comm::agree(world, "export", [&] {
      if (world.is_root()) export_weights(*options);
    });
    return 0;
  };
}

}  // namespace seer::app
