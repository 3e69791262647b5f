// SPDX-License-Identifier: Apache-2.0
// How one rank's failure ends all of them (docs/operations.md). See also agree() and die() in communicator.hpp.
#pragma once

#include "seer/base/error.hpp"

namespace seer::comm {

/// The Error to report for std::bad_alloc.
Error out_of_memory();
/// Calls die() with this error, the update and the phase, and the stack of the place where the error was made.
[[noreturn]] void die_of(const Error& error);
/// Calls leave_trace() with this error and that stack.
void leave_trace_of(const Error& error);

}  // namespace seer::comm
