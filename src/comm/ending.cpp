// SPDX-License-Identifier: Apache-2.0
#include "seer/comm/ending.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <mpi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "seer/base/log.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/stack.hpp"

namespace seer::comm {
namespace {

std::atomic<long> ending_thread{0};
std::atomic<int> code{0};
std::atomic<const char*> last_words{nullptr};
std::atomic<bool (*)()> may_spare{nullptr};
char trace_path[4096] = "";
char who[512] = "rank 0/1";

void copy(char* to, std::size_t room, const std::string& text) {
  const auto length = std::min(room - 1, text.size());
  std::memcpy(to, text.data(), length);
  to[length] = '\0';
}

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
  copy(who, sizeof who, fmt::format("rank {}/{} on {}", log::rank(), log::ranks(), log::host_name()));
}

void leave_traces_in(const std::string& run_dir) {
  know_identity();
  copy(trace_path, sizeof trace_path, fmt::format("{}/error.{}.txt", run_dir, log::rank()));
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
  (SafeText() << "\n\nexecutable's build id " << build_id() << "\nstack (addr2line -Cfe FILE OFFSET tells lines):\n")
      .write_to(file);
  if (frames.empty()) {
    write_stack(file, context);
  } else {
    write_frames(file, frames.data(), static_cast<int>(frames.size()));
  }
  ::close(file);
}

}  // namespace seer::comm
