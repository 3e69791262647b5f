// SPDX-License-Identifier: Apache-2.0
#include "seer/base/build_info.hpp"

namespace seer {
std::string build_info() {
  return "seer " SEER_VERSION " (" SEER_COMPILER ", " SEER_BUILD_TYPE ")";
}
}  // namespace seer
