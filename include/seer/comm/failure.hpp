// SPDX-License-Identifier: Apache-2.0
// How one rank's failure ends all of them (docs/operations.md). See also agree() and die() in communicator.hpp.
#pragma once

#include "seer/base/error.hpp"

namespace seer::comm {

/// What std::bad_alloc means here.
Error out_of_memory();
/// die() of this error, with the update and the phase, and the stack of where the error was made.
[[noreturn]] void die_of(const Error& error);
/// leave_trace() likewise.
void leave_trace_of(const Error& error);

}  // namespace seer::comm
