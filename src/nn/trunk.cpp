// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/trunk.hpp"

#include <fmt/format.h>

#include "seer/base/error.hpp"

namespace seer::nn {

#define SEER_KIND(name) extern const TrunkKind name;
namespace trunks {
#include "trunks.inc"
}
#undef SEER_KIND

const std::vector<const TrunkKind*>& trunk_kinds() {
#define SEER_KIND(name) &trunks::name,
  static const std::vector<const TrunkKind*> kinds = {
#include "trunks.inc"
  };
#undef SEER_KIND
  return kinds;
}

std::vector<std::string> trunk_names() {
  std::vector<std::string> names;
  for (const auto* kind : trunk_kinds()) names.emplace_back(kind->name);
  return names;
}

const TrunkKind& trunk_kind(const config::Model& model) {
  for (const auto* kind : trunk_kinds()) {
    if (model.trunk == kind->name) return *kind;
  }
  throw Error(ExitCode::input, fmt::format("model.trunk = \"{}\" is not known", model.trunk),
              fmt::format("known trunks: {}", fmt::join(trunk_names(), ", ")))
      .as_agreed();
}

std::unique_ptr<Chain> make_trunk(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers) {
  return trunk_kind(model).make(model, parameters, buffers);
}

}  // namespace seer::nn
