// SPDX-License-Identifier: Apache-2.0
// Call stacks of errors. Creating an Error saves the current call stack in a table outside the Error object.
#pragma once

#include <vector>

#include "seer/base/error.hpp"

namespace seer {

/// Returns the return addresses, innermost first, of the newest error with this text and place, from any thread. Empty
/// if that error is older than the last 16, because only those are kept.
std::vector<void*> stack_of(const Error& error);

}  // namespace seer
