// SPDX-License-Identifier: Apache-2.0
// Requests from outside: SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP, SIGXCPU, the wall-clock limit and the file STOP in
// the run folder ask the run to stop; the file CHECKPOINT asks for a checkpoint. They only set flags. The step loop
// adds the flags to a reduction that it does anyway, so all ranks act at the same update.
#pragma once

#include <cstdint>
#include <string>

namespace seer::watch {

/// Installs the handlers. Call before MPI starts, so that every signal meets a handler. SIGHUP and SIGINT stay ignored
/// if they were ignored before.
void catch_stop_signals();
/// Installs the handlers and the limit: the flag is set `walltime_s` after the process started; 0: no limit. A second
/// signal (other than SIGHUP and SIGXCPU), a second or more after the first, ends the process at once with exit code
/// 75; the newest complete checkpoint stays as it is. An earlier one counts as the first signal delivered twice, e.g.
/// by a launcher and by Slurm.
void watch_for_stop(std::int64_t walltime_s);
/// The calling rank looks for STOP and CHECKPOINT in the folder from now on: when a function below is called, at most
/// once a second. It removes CHECKPOINT when it sees it.
void watch_for_files(const std::string& run_dir);
/// True after this rank was asked to stop.
bool stop_requested();
/// Returns true once for each request for a checkpoint.
bool take_checkpoint_request();
/// "SIGUSR1", "SIGINT (Ctrl-C)", "walltime", "STOP", ..., or "".
std::string stop_reason();
/// Call when the run has stopped: removes STOP, so that the next start does not find it.
void stop_is_done();

/// From now on, crashes (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT and uncaught exceptions, in any thread) print one
/// line on stderr, write error.<rank>.txt with a stack, and end all ranks. Call after MPI_Init (which installs its own
/// handlers) and log::start. Exit code: 6 for the signals; for exceptions the Error's own code, 5 if memory ran out,
/// else 6.
void catch_crashes();

}  // namespace seer::watch
