// SPDX-License-Identifier: Apache-2.0
// Where an error came from: every Error remembers, in a place beside it, the calls that led to where it was made.
#pragma once

#include <vector>

#include "seer/base/error.hpp"

namespace seer {

/// Return addresses, innermost first, of the newest error of this text and place, made in whatever thread; empty where
/// that was too many errors ago (only the last 16 are remembered).
std::vector<void*> stack_of(const Error& error);

}  // namespace seer
