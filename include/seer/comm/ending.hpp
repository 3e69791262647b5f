// SPDX-License-Identifier: Apache-2.0
// The last steps of a failing process, in any thread and in signal handlers: one thread reports, an alarm limits the
// time, all ranks end.
#pragma once

#include <span>
#include <string>

namespace seer::comm {

inline constexpr unsigned kAbort_s = 30;  ///< time limit for aborting

/// Returns only for the first thread that calls it; other threads wait for the end. If that thread calls it again,
/// because ending the process failed too, the process exits with the first code.
void begin_ending(int exit_code);
/// Ends the process with `exit_code` after `seconds`, whatever hangs, and then writes `text`, which must stay valid.
/// Calls `spare` first, which must be async-signal-safe: if it returns true, the end moves by kAbort_s. Does nothing
/// while another thread is ending the process.
void end_in(unsigned seconds, int exit_code, const char* text = nullptr, bool (*spare)() = nullptr);
/// Cancels end_in(), unless the process is ending.
void go_on_living();
/// Ends all ranks if MPI runs, and this one in any case.
[[noreturn]] void end_all(int exit_code);

/// "rank 3/8 on node7"
const char* identity();
void know_identity();
/// Writes error.<rank>.txt if a run folder is known: message, build id, stack (the caller's stack if `frames` is empty;
/// a signal handler passes its `context`). Allocates nothing.
void write_trace(const char* message, std::span<void* const> frames = {}, const void* context = nullptr);

}  // namespace seer::comm
