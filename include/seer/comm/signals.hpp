// SPDX-License-Identifier: Apache-2.0
// Requests to stop: SIGTERM, SIGUSR1, SIGINT and the wall-clock limit set a flag; the step loop lets it ride on a
// reduction it does anyway, so that all ranks stop at the same update.
#pragma once

#include <string>

namespace seer::comm {

/// Installs the handlers. `walltime` "hh:mm:ss" or "": the flag is raised that long after this call.
/// A second signal ends the process at once (exit code 75; the newest complete checkpoint stays what it is).
void watch_for_stop(const std::string& walltime);
/// True once this rank was asked to stop.
bool stop_requested();
/// "SIGUSR1", "walltime", or "" .
std::string stop_reason();

}  // namespace seer::comm
