// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

namespace seer {
/// "seer 0.1.0 (g++ 12.2.0, Release)": printed at start and stored in checkpoints.
std::string build_info();
}  // namespace seer
