// SPDX-License-Identifier: Apache-2.0
// seer import IN.safetensors OUT.h5: converts PyTorch's weights to a weights file.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/config/config.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/weights/exchange.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string in, out, names = "auto", prefix;
  config::Model model;
};

/// Error(input) if the trunk does not use an option that was given.
void refuse_unused(const config::Model& model) {
  const config::Config usual;
  config::Config given;
  given.model = model;
  const auto used = config::compare(config::to_toml(usual), given).differences;  // leaves out unused keys
  const auto& u = usual.model;
  for (const auto& [name, set] :
       {std::pair("width_rule", model.width_rule != u.width_rule), std::pair("stem", model.stem != u.stem),
        std::pair("depth", model.depth != u.depth), std::pair("w0", model.w0 != u.w0),
        std::pair("wa", model.wa != u.wa), std::pair("wm", model.wm != u.wm),
        std::pair("group_width", model.group_width != u.group_width)}) {
    const auto is = [key = std::string("model.") + name](const auto& difference) { return difference.key == key; };
    if (!set || std::ranges::any_of(used, is)) continue;
    std::string option = std::string("--") + name;
    std::ranges::replace(option, '_', '-');
    throw Error(ExitCode::input, fmt::format("{} has no effect with --trunk {}", option, model.trunk), "leave it out");
  }
}

void import_weights(Options options) {
  auto& model = options.model;
  const bool numbers = model.depth != 0 || model.w0 != 0 || model.wm > 0 || model.group_width != 0;
  if (!model.preset.empty() && numbers) {
    throw Error(ExitCode::input, "--preset and numbers of a trunk are both given",
                "give --preset, or --depth --w0 --wa --wm --group-width");
  }
  refuse_unused(model);
  refuse_misleading(options.out, "HDF5");
  std::error_code unknown;  // an output file that does not exist yet is not the input
  if (std::filesystem::equivalent(options.in, options.out, unknown)) {
    throw Error(ExitCode::input, fmt::format("{} is both input and output", options.in),
                "give the output another name");
  }
  std::ranges::transform(model.preset, model.preset.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool given = numbers || !model.preset.empty();
  const auto imported = weights::import_safetensors(options.in, given ? std::optional(model) : std::nullopt,
                                                    weights::parse_naming(options.names), options.prefix);
  const auto& weights = imported.weights;
  for (const auto& [prefix, count] : imported.prefixes)
    log::info(fmt::format("removed the prefix \"{}\" from {} names", prefix, count));
  if (const auto& ignored = imported.ignored; !ignored.empty()) {
    const auto shown = std::span(ignored).first(std::min<std::size_t>(ignored.size(), 8));
    log::warn(fmt::format("{} tensors of {} are not part of the model and left out: {}{}", ignored.size(), options.in,
                          fmt::join(shown, ", "), shown.size() < ignored.size() ? " ..." : ""));
  }
  const bool classifier = !weights.classifier.empty();
  if (classifier) log::info("fc.* is kept, for export and finetune.classifier = \"keep\"");
  weights::write_weights(options.out, weights);
  std::size_t values = 0;
  for (const auto& [name, tensor] : weights.parameters) {
    values += tensor.values.size();
    const auto bad = std::ranges::count_if(tensor.values, [](float value) { return !std::isfinite(value); });
    if (bad > 0) log::warn(fmt::format("{}: {} of {} values are not finite", name, bad, tensor.values.size()));
  }
  log::info(fmt::format(
      "{}: {} parameters in {} tensors, {}", options.out, values, weights.parameters.size(),
      weights.head.dims.empty()
          ? (classifier ? "trunk and classifier" : "trunk only")
          : fmt::format("head {}, {} prototypes", fmt::join(weights.head.dims, "-"), weights.head.prototypes)));
}

}  // namespace

Run add_import(CLI::App& command) {
  auto options = std::make_shared<Options>();
  options->model.preset.clear();
  auto& model = options->model;
  command
      .add_option("IN.safetensors", options->in,
                  "Weights of a trunk with the names of torchvision, timm, transformers, pycls, ClassyVision or VISSL")
      ->required();
  command.add_option("OUT.h5", options->out, "Weights file to write")->required();
  command.add_option("--trunk", model.trunk, "Family of the trunk; not needed for an export of seer")
      ->check(CLI::IsMember(nn::trunk_names()));
  command.add_option("--preset", model.preset, "Trunk of this size: 400mf, 8gf ...; not needed for an export of seer");
  command.add_option("--width-rule", model.width_rule, "How widths fit groups; differs for 800mf, 4.0gf, 8gf")
      ->check(CLI::IsMember({"pycls", "torchvision"}));
  command
      .add_option("--stem", model.stem, "Stem, if the trunk has a choice: small is a 3x3 convolution without pooling")
      ->check(CLI::IsMember({"standard", "small"}));
  command.add_option("--depth", model.depth, "Instead of a preset: number of blocks")->default_str("");
  command.add_option("--w0", model.w0, "Initial width")->default_str("");
  command.add_option("--wa", model.wa, "Slope of the width")->default_str("");
  command.add_option("--wm", model.wm, "Width multiplier")->default_str("");
  command.add_option("--group-width", model.group_width, "Channels of a group")->default_str("");
  command.add_option("--names", options->names, "Names in the file")
      ->check(CLI::IsMember({"auto", "torchvision", "vissl"}));
  command.add_option("--prefix", options->prefix,
                     "For a file of several networks: take the tensors with this prefix, and remove it");
  return [options](const comm::Communicator& world) {
    comm::agree(world, "import", [&] {
      if (world.is_root()) import_weights(*options);
    });
    return 0;
  };
}

}  // namespace seer::app
