// SPDX-License-Identifier: Apache-2.0
#include "seer/method/method.hpp"

#include <fmt/format.h>

#include "seer/base/error.hpp"

namespace seer::method {

#define SEER_KIND(name) extern const Kind name;
namespace methods {
#include "methods.inc"
}
#undef SEER_KIND

const Kind& kind(const config::Config& config) {
#define SEER_KIND(name) &methods::name,
  static constexpr const Kind* kinds[] = {
#include "methods.inc"
  };
#undef SEER_KIND
  std::string names;
  for (const auto* found : kinds) {
    if (config.method.kind == found->name) return *found;
    names += (names.empty() ? "" : ", ") + std::string(found->name);
  }
  throw Error(ExitCode::input, fmt::format("method.kind = \"{}\" is not known", config.method.kind),
              "known methods: " + names)
      .as_agreed();
}

nn::Model make_model(const config::Config& config) {
  return nn::Model(config.model, kind(config).heads(config));
}

}  // namespace seer::method
