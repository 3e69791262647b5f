// SPDX-License-Identifier: Apache-2.0
// What a defect leaves behind: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT and exceptions that nobody catches, in any
// thread, become one line on stderr, error.<rank>.txt with a stack, and the end of all ranks.
#pragma once

#include "seer/base/error.hpp"

namespace seer::comm {

/// After MPI_Init (which installs handlers of its own) and log::start. Exit code 6 for the signals; for exceptions
/// that of the Error, 5 where memory ran out, else 6.
void catch_crashes();

/// What std::bad_alloc means here.
Error out_of_memory();
/// die() (communicator.hpp) of this error, with the update and the phase, and the stack of where the error was made.
[[noreturn]] void die_of(const Error& error);
/// leave_trace() likewise.
void leave_trace_of(const Error& error);

}  // namespace seer::comm
