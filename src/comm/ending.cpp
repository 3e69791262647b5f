// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/ending.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <mpi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/thread.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/stack.hpp"

namespace seer::comm {
namespace {

std::atomic<long> ending_thread{0};
std::atomic<int> code{0};
std::atomic<const char*> last_words{nullptr};
std::atomic<bool (*)()> may_spare{nullptr};
char trace_path[4096] = "";
char who[512] = "rank 0/1";

void on_alarm(int) {
  const auto spare = may_spare.load();
  if (spare != nullptr && spare()) {
    alarm(kAbort_s);
    return;
  }
  if (const char* text = last_words) [[maybe_unused]]
    const auto n = ::write(STDERR_FILENO, text, std::strlen(text));
  _exit(code);
}

[[noreturn]] void end_with(const std::string& message, int exit_code, std::span<void* const> frames) {
  begin_ending(exit_code);
  log::error(message);
  write_trace(message.c_str(), frames);
  end_all(exit_code);
}

}  // namespace

void begin_ending(int exit_code) {
  const long me = syscall(SYS_gettid);
  long nobody = 0;
  if (!ending_thread.compare_exchange_strong(nobody, me)) {
    if (nobody == me) _exit(code);
    for (;;) pause();
  }
  end_in(kAbort_s, exit_code);
}

void end_in(unsigned seconds, int exit_code, const char* text, bool (*spare)()) {
  const long owner = ending_thread;
  if (owner != 0 && owner != syscall(SYS_gettid)) return;
  alarm(0);  // no alarm while the values below change
  code = exit_code;
  last_words = text;
  may_spare = spare;
  struct sigaction action {};
  action.sa_handler = on_alarm;
  action.sa_flags = SA_ONSTACK;  // see signals.cpp
  sigaction(SIGALRM, &action, nullptr);
  sigset_t ours;
  sigemptyset(&ours);
  sigaddset(&ours, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &ours, nullptr);
  alarm(seconds);
}

void go_on_living() {
  if (ending_thread == 0) alarm(0);
}

void end_all(int exit_code) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (initialized != 0 && finalized == 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

const char* identity() {
  return who;
}

void know_identity() {
  *fmt::format_to_n(who, sizeof who - 1, "rank {}/{} on {}", log::rank(), log::ranks(), log::host_name()).out = '\0';
}

void leave_traces_in(const std::string& run_dir) {
  know_identity();
  *fmt::format_to_n(trace_path, sizeof trace_path - 1, "{}/error.{}.txt", run_dir, log::rank()).out = '\0';
}

void forget_old_traces(const std::string& run_dir) {
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator entry(run_dir, ignored), end; !ignored && entry != end;
       entry.increment(ignored))
    found.push_back(entry->path());
  for (const auto& path : found) {
    const auto name = path.filename().string();
    int rank = 0, length = 0;
    if (std::sscanf(name.c_str(), "error.%d.txt%n", &rank, &length) == 1 && length == static_cast<int>(name.size()))
      std::filesystem::remove(path, ignored);
  }
}

void write_trace(const char* message, std::span<void* const> frames, const void* context) {
  if (trace_path[0] == '\0') return;
  const int file = ::open(trace_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return;
  (SafeText() << who << "\n").write_to(file);
  [[maybe_unused]] const auto n = ::write(file, message, std::strlen(message));
  (SafeText() << "\n\nexecutable's build id " << build_id()
              << "\nstack (addr2line -Cfe FILE OFFSET prints a frame's line):\n")
      .write_to(file);
  if (frames.empty())
    write_stack(file, context);
  else
    write_frames(file, frames);
  ::close(file);
}

std::thread start_watching_thread(const std::string& what, const std::function<void()>& run) {
  sigset_t others, before;
  sigfillset(&others);
  for (const int signal : kCrashes) sigdelset(&others, signal);
  pthread_sigmask(SIG_SETMASK, &others, &before);
  auto thread = start_thread(what, run);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

void leave_trace_of(const Error& error) {
  write_trace(error.message().c_str(), stack_of(error));
}

Error out_of_memory() {
  return Error(ExitCode::device, "out of memory", "use more ranks, a smaller batch or a smaller model");
}

void agree(const Communicator& comm, const std::string& name, const std::function<void()>& phase) {
  std::optional<Error> mine;
  try {
    phase();
  } catch (const Error& e) {
    mine = e;
  } catch (const std::bad_alloc&) {
    mine = out_of_memory();
  } catch (const std::exception& e) {
    mine = Error(ExitCode::internal, e.what());
  }
  // One reduction in the good case: the lowest failing rank, or size() if there is none.
  const auto first = comm.all_reduce(std::int64_t{mine ? comm.rank() : comm.size()}, Op::min);
  if (first == comm.size()) return;
  const auto failures = comm.all_reduce(std::int64_t{mine ? 1 : 0}, Op::sum);
  std::int64_t exit_code = mine ? static_cast<std::int64_t>(mine->code()) : 0;
  std::string what = mine ? mine->what() : "", remedy = mine ? mine->remedy() : "";
  std::string place = mine ? mine->where() : "";
  const int root = static_cast<int>(first);
  comm.broadcast(&exit_code, sizeof exit_code, root);
  for (auto* text : {&what, &remedy, &place}) comm.broadcast(*text, root);
  if (comm.size() > 1 && failures < comm.size())
    what += fmt::format(" (rank {}; {} of {} ranks failed in: {})", root, failures, comm.size(), name);
  throw Error(static_cast<ExitCode>(exit_code), what, remedy).at(place).as_agreed();
}

void die(const std::string& message, int exit_code) {
  end_with(message, exit_code, {});
}

void die_of(const Error& error) {
  end_with(error.message() + doing_text(), static_cast<int>(error.code()), stack_of(error));
}

}  // namespace seer::comm
