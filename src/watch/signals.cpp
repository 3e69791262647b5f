// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/signals.hpp"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <exception>
#include <new>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/launcher.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/stack.hpp"

namespace seer::watch {
namespace {

constexpr std::pair<int, const char*> kStops[] = {
    {SIGTERM, "SIGTERM"},
    {SIGUSR1, "SIGUSR1"},
    {SIGUSR2, "SIGUSR2"},
    {SIGINT, "SIGINT (Ctrl-C)"},
    {SIGHUP, "SIGHUP (the terminal is gone)"},
    {SIGXCPU, "SIGXCPU (the CPU time limit)"},
};
constexpr std::int64_t kSecond_ns = 1'000'000'000;

const auto began_ns = comm::steady_ns();  // when the program was loaded, before MPI_Init
std::atomic<int> received{0};
std::atomic<std::int64_t> received_ns{0};
std::atomic<bool> mpirun_ends{false};
std::int64_t deadline_ns = 0;  // 0: none
bool launched_by_mpirun = false;

/// Used only by the thread of the step loop.
struct Files {
  std::string stop, checkpoint;  ///< paths; empty: not looked for
  std::int64_t looked_ns = 0;
  bool stop_seen = false, checkpoint_seen = false;
} files;

void on_signal(int signal, siginfo_t* info, void*) {
  int nothing = 0;
  if (received.compare_exchange_strong(nothing, signal)) {
    received_ns = comm::steady_ns();
    // Open MPI's mpirun sends SIGTERM only when it is about to end.
    mpirun_ends = launched_by_mpirun && signal == SIGTERM && info->si_pid == getppid();
    return;
  }
  if (signal == SIGHUP || signal == SIGXCPU) return;  // the system sends these repeatedly
  // Within a second, it is the first one again.
  if (const auto first = received_ns.load(); first != 0 && comm::steady_ns() - first >= kSecond_ns)
    _exit(static_cast<int>(ExitCode::requeue));
}

void look_for_files() {
  if (files.stop.empty() || comm::steady_ns() - files.looked_ns < kSecond_ns) return;
  files.looked_ns = comm::steady_ns();
  files.stop_seen = files.stop_seen || ::access(files.stop.c_str(), F_OK) == 0;
  if (::unlink(files.checkpoint.c_str()) == 0) files.checkpoint_seen = true;
}

constexpr int kInternal = static_cast<int>(ExitCode::internal);
alignas(16) char own_stack[256 << 10];  ///< signal stack of the main thread; its own may have overflowed

constexpr std::pair<int, const char*> kCrashNames[] = {
    {SIGSEGV, "SIGSEGV (bad address)"},
    {SIGBUS, "SIGBUS (bad address, or a mapped file was truncated)"},
    {SIGFPE, "SIGFPE (division by zero)"},
    {SIGILL, "SIGILL (an instruction that this processor lacks: was seer built for another one?)"},
    {SIGABRT, "SIGABRT (a library gave up)"},
};

/// Async-signal-safe except for the unwinder and MPI_Abort. If they hang, the alarm ends the process.
void on_crash(int signal, siginfo_t* info, void* context) {
  comm::begin_ending(kInternal);
  comm::SafeText what;
  for (const auto& [known, name] : kCrashNames)
    if (known == signal) what << name;
  if (info->si_code <= 0 && signal != SIGABRT)
    what << " sent by process " << std::int64_t{info->si_pid};
  else if (signal == SIGSEGV || signal == SIGBUS)
    (what << " at ").hex(reinterpret_cast<std::uintptr_t>(info->si_addr));
  if (comm::told_update() >= 0) what << "; in update " << comm::told_update();
  what << ", " << comm::doing_now().phase;
  what << "; this is a defect of seer or of a library: please report it with error.<rank>.txt";
  (comm::SafeText() << "error: " << comm::identity() << ": " << what.c_str() << "\n").write_to(STDERR_FILENO);
  comm::write_trace(what.c_str(), {}, context);
  comm::end_all(kInternal);
}

[[noreturn]] void on_terminate() {
  try {
    if (const auto error = std::current_exception()) std::rethrow_exception(error);
  } catch (const Error& error) {
    comm::die_of(error);
  } catch (const std::bad_alloc&) {
    comm::die_of(comm::out_of_memory());
  } catch (const std::exception& error) {
    comm::die(std::string("uncaught exception: ") + error.what() + comm::doing_text(), kInternal);
  } catch (...) {
  }
  comm::die("std::terminate was called" + comm::doing_text(), kInternal);
}

}  // namespace

void catch_stop_signals() {
  launched_by_mpirun = comm::under_mpirun();
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  // On a separate stack (catch_crashes() creates it). Handlers on the interrupted stack corrupted memory in one stop of
  // twenty: some kernel that oneDNN generates must keep values further below the stack pointer than the Linux kernel
  // spares.
  action.sa_flags = SA_RESTART | SA_ONSTACK | SA_SIGINFO;
  for (const auto& [signal, reason] : kStops) {
    struct sigaction before {};
    sigaction(signal, nullptr, &before);
    // nohup ignores these from the start, and so does a shell without job control that runs this in the background.
    const bool shielded = (signal == SIGHUP || signal == SIGINT) && before.sa_handler == SIG_IGN;
    if (!shielded) sigaction(signal, &action, nullptr);
  }
}

void watch_for_stop(std::int64_t walltime_s) {
  catch_stop_signals();
  if (walltime_s > 0) deadline_ns = began_ns + walltime_s * kSecond_ns;
}

void watch_for_files(const std::string& run_dir) {
  files = {.stop = run_dir + "/STOP", .checkpoint = run_dir + "/CHECKPOINT"};
}

bool stop_requested() {
  look_for_files();
  return received != 0 || files.stop_seen || (deadline_ns != 0 && comm::steady_ns() >= deadline_ns);
}

bool take_checkpoint_request() {
  look_for_files();
  return std::exchange(files.checkpoint_seen, false);
}

std::string stop_reason() {
  if (mpirun_ends) return "SIGTERM from mpirun (which got Ctrl-C, SIGTERM or SIGHUP, or cannot write its output)";
  for (const auto& [signal, reason] : kStops)
    if (signal == received) return reason;
  return files.stop_seen ? "STOP" : stop_requested() ? "walltime" : "";
}

void stop_is_done() {
  if (files.stop_seen) ::unlink(files.stop.c_str());
}

void catch_crashes() {
  comm::prepare_stacks();
  comm::know_identity();
  std::set_terminate(on_terminate);
  stack_t stack{};
  stack.ss_sp = own_stack;
  stack.ss_size = sizeof own_stack;
  sigaltstack(&stack, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (const int signal : comm::kCrashes) sigaction(signal, &action, nullptr);
}

}  // namespace seer::watch
