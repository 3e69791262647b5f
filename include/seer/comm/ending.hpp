// SPDX-License-Identifier: Apache-2.0
// How one rank's failure ends all of them (docs/operations.md), in any thread and in signal handlers: one thread
// reports, an alarm limits the time, all ranks end. See also agree() and die() in communicator.hpp.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <span>
#include <string>
#include <thread>

#include "seer/base/error.hpp"

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

/// The Error to report for std::bad_alloc.
Error out_of_memory();
/// Calls die() with this error, the update and the phase, and the stack of the place where the error was made.
[[noreturn]] void die_of(const Error& error);
/// Calls write_trace() with this error and that stack.
void leave_trace_of(const Error& error);

/// The signals of a defect.
inline constexpr std::array kCrashes = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
/// Like start_thread(). The thread gets no signals but those, so requests to stop and alarms go to other threads.
std::thread start_watching_thread(const std::string& what, const std::function<void()>& run);

/// "rank 3/8 on node7"
const char* identity();
void know_identity();
/// Writes error.<rank>.txt if a run folder is known: message, build id, stack (the caller's stack if `frames` is empty;
/// a signal handler passes its `context`). Allocates nothing.
void write_trace(const char* message, std::span<void* const> frames = {}, const void* context = nullptr);

}  // namespace seer::comm
