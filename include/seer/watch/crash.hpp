// SPDX-License-Identifier: Apache-2.0
// What a defect leaves behind: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT and exceptions that nobody catches, in any
// thread, become one line on stderr, error.<rank>.txt with a stack, and the end of all ranks.
#pragma once

namespace seer::watch {

/// After MPI_Init (which installs handlers of its own) and log::start. Exit code 6 for the signals; for exceptions
/// that of the Error, 5 where memory ran out, else 6.
void catch_crashes();

}  // namespace seer::watch
