// SPDX-License-Identifier: Apache-2.0
// The kinds of trunk. Each is one file in src/nn/trunks that defines a TrunkKind of the file's name; CMake lists them.
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
  /// Registers the trunk's tensors by torchvision's names. Error(input) where the model's keys describe no such trunk.
  /// The chain takes images [n, h, w, 3] in float and puts out features [n, width()]; in eval mode its pass ends
  /// without tensors but those that are to stay.
  std::unique_ptr<Chain> (*make)(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers);
  /// The first words of its tensors' names, such as "stem".
  std::vector<std::string> roots;
  /// Models with a preset that weights can be recognised as, the likeliest of equals first.
  std::vector<config::Model> (*presets)();
  /// What an export notes of the architecture beside the model's keys: name and value.
  std::vector<std::pair<std::string, std::string>> (*metadata)(const config::Model& model);
  /// Python that makes torchvision's net of this architecture: lines that end in `model = ...`.
  std::string (*python)(const config::Model& model);
};

const std::vector<const TrunkKind*>& trunk_kinds();
std::vector<std::string> trunk_names();
/// The kind that model.trunk names; Error(input), agreed, where there is none.
const TrunkKind& trunk_kind(const config::Model& model);

std::unique_ptr<Chain> make_trunk(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers);

}  // namespace seer::nn
