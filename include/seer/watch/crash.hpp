// SPDX-License-Identifier: Apache-2.0
// Reports crashes: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT and uncaught exceptions, in any thread, print one line on
// stderr, write error.<rank>.txt with a stack, and end all ranks.
#pragma once

namespace seer::watch {

/// Call after MPI_Init (which installs its own handlers) and log::start. Exit code: 6 for the signals; for exceptions
/// the Error's own code, 5 if memory ran out, else 6.
void catch_crashes();

}  // namespace seer::watch
