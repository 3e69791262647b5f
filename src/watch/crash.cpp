// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/crash.hpp"

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <exception>
#include <new>

#include "seer/base/error.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/failure.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/ring.hpp"
#include "seer/comm/stack.hpp"

namespace seer::watch {
namespace {

constexpr std::array kCrashes = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
constexpr int kInternal = static_cast<int>(ExitCode::internal);
alignas(16) char own_stack[256 << 10];  ///< signal stack of the main thread; its own may have overflowed

const char* name_of(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV (bad address)";
    case SIGBUS:
      return "SIGBUS (bad address, or a mapped file was cut)";
    case SIGFPE:
      return "SIGFPE (division by zero)";
    case SIGILL:
      return "SIGILL (an instruction that this processor lacks: was seer built for another one?)";
    case SIGABRT:
      return "SIGABRT (a library gave up)";
    default:
      return "a signal";
  }
}

/// Async-signal-safe except for the unwinder and MPI_Abort. If they hang, the alarm ends the process.
void on_crash(int signal, siginfo_t* info, void* context) {
  comm::begin_ending(kInternal);
  comm::SafeText what;
  what << name_of(signal);
  if (info->si_code <= 0 && signal != SIGABRT) {
    what << " sent by process " << std::int64_t{info->si_pid};
  } else if (signal == SIGSEGV || signal == SIGBUS) {
    (what << " at ").hex(reinterpret_cast<std::uintptr_t>(info->si_addr));
  }
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
    comm::die(std::string("nobody catches: ") + error.what() + comm::doing_text(), kInternal);
  } catch (...) {
  }
  comm::die("std::terminate was called" + comm::doing_text(), kInternal);
}

}  // namespace

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
  for (const int signal : kCrashes) sigaction(signal, &action, nullptr);
}

}  // namespace seer::watch
