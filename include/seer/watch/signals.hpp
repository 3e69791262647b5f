// SPDX-License-Identifier: Apache-2.0
// Requests from outside: SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP, SIGXCPU, the wall-clock limit and the file STOP in
// the run folder ask the run to stop, the file CHECKPOINT asks for a checkpoint. They raise flags; the step loop lets
// these ride on a reduction it does anyway, so that all ranks act at the same update.
#pragma once

#include <cstdint>
#include <string>

namespace seer::watch {

/// Installs the handlers; before MPI starts, so that no signal meets a run that cannot answer it. SIGHUP and SIGINT
/// stay ignored where they were.
void catch_stop_signals();
/// The same, and the limit. 0: none; else the flag is raised that long after the process was started.
/// A second signal, a second or more after the first, ends the process at once (exit code 75; the newest complete
/// checkpoint stays what it is). Sooner it is taken for the first one delivered twice, as by a launcher and by Slurm.
void watch_for_stop(std::int64_t walltime_s);
/// The rank that calls this looks for STOP and CHECKPOINT in the folder, when it is asked below and at most once a
/// second. CHECKPOINT is removed when it is seen.
void watch_for_files(const std::string& run_dir);
/// True once this rank was asked to stop.
bool stop_requested();
/// True once for every request for a checkpoint.
bool take_checkpoint_request();
/// "SIGUSR1", "SIGINT (Ctrl-C)", "walltime", "STOP", ..., or "".
std::string stop_reason();
/// The stop has been done: removes STOP, so that the next start does not find it.
void stop_is_done();

}  // namespace seer::watch
