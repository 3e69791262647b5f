// SPDX-License-Identifier: Apache-2.0
// The kinds of trunk. Each is one file in src/nn/trunks that defines a TrunkKind named like it; CMake lists the files.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/nn/chain.hpp"
#include "seer/nn/parameter.hpp"

namespace seer::nn {

struct TrunkKind {
  const char* name;  ///< the value of model.trunk
  /// Registers the trunk's tensors under torchvision's names. Error(input) if the model's keys describe no such trunk.
  /// The chain maps images [n, h, w, 3], float, to features [n, width()]. If no backward pass follows, its pass ends
  /// holding only the outputs of PassOptions::outputs.
  std::unique_ptr<Chain> (*make)(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers);
  /// The first words of its tensors' names, such as "stem".
  std::vector<std::string> roots;
  /// The preset models to compare weights with when their architecture is unknown; the first match is used.
  std::vector<config::Model> (*presets)();
  /// Name and value of each fact that an export records about the architecture besides the model's keys.
  std::vector<std::pair<std::string, std::string>> (*metadata)(const config::Model& model);
  /// Python lines that build torchvision's network of this architecture as `model`.
  std::string (*python)(const config::Model& model);
};

const std::vector<const TrunkKind*>& trunk_kinds();
std::vector<std::string> trunk_names();
/// The kind that model.trunk names; Error(input), agreed, if there is none.
const TrunkKind& trunk_kind(const config::Model& model);

struct Convolution {
  dnn::ConvShape shape;
  std::int64_t count = 1;  ///< how often it occurs in the trunk
};
/// The distinct convolutions of a forward pass over images of size x size pixels, by first use: the first reads images.
/// Runs the trunk on a planned machine.
std::vector<Convolution> convolutions(const Chain& trunk, std::int64_t images, std::int64_t size);

}  // namespace seer::nn
