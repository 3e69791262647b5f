// SPDX-License-Identifier: Apache-2.0
// The last steps of a process that fails, in any thread and in signal handlers: one speaks, an alarm stands behind it,
// all ranks end.
#pragma once

#include <span>
#include <string>

namespace seer::comm {

inline constexpr unsigned kAbort_s = 30;  ///< that aborting may take

/// Returns for the first thread that calls it; others wait for the end. A second call by that thread (what it does to
/// end the process fails itself) ends the process with the first code.
void begin_ending(int exit_code);
/// The process ends with `exit_code` after that many seconds, whatever hangs. `text` is written then; it stays.
/// `spare`, async-signal-safe, is asked first: true puts the end off by kAbort_s. Nothing while another thread is
/// ending the process.
void end_in(unsigned seconds, int exit_code, const char* text = nullptr, bool (*spare)() = nullptr);
/// Takes end_in() back, unless the process is ending.
void go_on_living();
/// All ranks, if MPI runs; this one in any case.
[[noreturn]] void end_all(int exit_code);

/// "rank 3/8 on node7"
const char* identity();
void know_identity();
/// error.<rank>.txt, if a run folder is known: message, build id, stack (that of the caller where `frames` is empty;
/// a signal handler gives its `context`). Allocates nothing.
void write_trace(const char* message, std::span<void* const> frames = {}, const void* context = nullptr);

}  // namespace seer::comm
