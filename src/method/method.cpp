// SPDX-License-Identifier: Apache-2.0
#include "seer/method/method.hpp"

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
  std::vector<std::string> names;
  for (const auto* found : kinds) {
    if (config.method.kind == found->name) return *found;
    names.emplace_back(found->name);
  }
  throw config::unknown("method.kind", config.method.kind, names);
}

}  // namespace seer::method
