// SPDX-License-Identifier: Apache-2.0
// seer export WEIGHTS_OR_CHECKPOINT OUT.safetensors: a file for PyTorch's load_state_dict(strict=True).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <tuple>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/data/shard.hpp"
#include "seer/weights/exchange.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string in, out, names = "torchvision";
  weights::Extras extras;
  bool all = false;
};

/// Returns the classes of a checkpoint's training images, as JSON; "" if the shards are gone or have no classes.
std::string classes_of(const std::string& shards, const comm::Communicator& alone) {
  try {
    const auto set = data::DataSet::open(shards, alone);
    return set.classes().empty() ? "" : weights::classes_text(set.classes());
  } catch (const Error&) {
    return "";
  }
}

void export_weights(const Options& options, const comm::Communicator& alone) {
  const auto from = checkpoint::resolve(options.in);
  auto extras = options.extras;
  if (options.all) extras = {.method = true, .momentum = true, .teacher = true};
  auto weights = weights::read_weights(from, extras);
  for (const auto& [asked, tensors, what] : {std::tuple(options.extras.momentum, &weights.momentum, "momenta"),
                                             std::tuple(options.extras.teacher, &weights.teacher, "teacher")})
    if (asked && tensors->empty())
      throw Error(ExitCode::input, fmt::format("{} has no {}", from, what),
                  "give a checkpoint of a run that has them, or leave the option out");
  if (!extras.method)
    std::erase_if(weights.momentum, [&](const auto& tensor) { return !weights.parameters.contains(tensor.first); });
  const auto naming = weights::parse_naming(options.names);
  auto& about = weights.about;
  about.try_emplace("source", from);
  if (about.contains("shards") && !about.contains("classes")) {
    if (const auto classes = classes_of(about["shards"], alone); !classes.empty()) about["classes"] = classes;
  }
  weights::export_safetensors(options.out, weights, naming);
  if (!about.contains("mean"))
    log::info("this file does not record how pixels were normalised, so the export does not either");
  log::info(fmt::format("{}: {} parameters and {} buffers with {}'s names", options.out, weights.parameters.size(),
                        weights.buffers.size(), options.names));
  if (const auto more = weights.method.size() + weights.momentum.size() + weights.teacher.size(); more > 0)
    log::info(fmt::format("and {} tensors of the method's own heads, {} momenta, {} of the teacher",
                          weights.method.size(), weights.momentum.size(), weights.teacher.size()));
  if (naming == weights::Naming::torchvision)
    log::info("Python that loads it:\n\n" + weights::python_lines(options.out, weights));
  else if (!weights.classifier.empty())
    log::info("fc.* is left out: VISSL's trunk has no classifier");
}

}  // namespace

Run add_export(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("WEIGHTS", options->in, "Weights file, checkpoint folder, or run folder (its newest checkpoint)")
      ->required();
  command.add_option("OUT.safetensors", options->out, "File to write")->required();
  command.add_option("--names", options->names, "Names of the trunk's tensors")
      ->check(CLI::IsMember({"torchvision", "vissl"}));
  command.add_flag("--momenta", options->extras.momentum, "Also the optimizer's momenta, as momentum.NAME");
  command.add_flag("--teacher", options->extras.teacher, "Also the teacher's tensors, as teacher.NAME");
  command.add_flag("--all", options->all, "All that the run has: these, and heads that only its method uses");
  return [options](const comm::Communicator& world) {
    const auto alone = world.split(world.rank());
    comm::agree(world, "export", [&] {
      require_ending(options->out, ".safetensors");
      if (world.is_root()) export_weights(*options, alone);
    });
    return 0;
  };
}

}  // namespace seer::app
