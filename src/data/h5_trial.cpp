// SPDX-License-Identifier: Apache-2.0
#include "seer/data/h5_trial.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "seer/base/error.hpp"

namespace seer::data::h5 {
namespace {

constexpr unsigned kTimeLimit_s = 120;
constexpr rlim_t kMemoryLimit_bytes = rlim_t{1} << 30;  // beyond what the process maps already
constexpr char kDone = 'd', kFailed = 'f';

void limit_child() {
  // The parent's handlers (Open MPI prints stacks) are not for a crash that is expected.
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGALRM}) std::signal(s, SIG_DFL);
  alarm(kTimeLimit_s);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
#ifndef __SANITIZE_ADDRESS__  // its shadow memory maps terabytes
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t bytes = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + kMemoryLimit_bytes;
  const rlimit memory{bytes, bytes};
  if (pages > 0) setrlimit(RLIMIT_AS, &memory);
#endif
}

void send(int pipe, const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto n = ::write(pipe, text.data() + at, text.size() - at);
    if (n < 0 && errno != EINTR) return;
    if (n > 0) at += static_cast<std::size_t>(n);
  }
}

[[noreturn]] void run_child(int pipe, const std::string& path, const std::function<std::string(const File&)>& work) {
  limit_child();
  std::string answer;
  try {
    answer = kDone + work(File::open(path));
  } catch (const Error& e) {
    answer = fmt::format("{}{}{}{}{}{}", kFailed, e.what(), '\0', e.remedy(), '\0', e.where());
  } catch (const std::exception& e) {  // bad_alloc at the limit
    answer = fmt::format("{}{}: reading its metadata failed: {}{}{}", kFailed, path, e.what(), '\0', '\0');
  }
  send(pipe, answer);
  _exit(0);  // no destructors: MPI and HDF5 of the parent are not ours to end
}

}  // namespace

std::string trial(const std::string& path, const std::function<std::string(const File&)>& work) {
  int ends[2];
  if (pipe(ends) != 0) throw Error(ExitCode::device, fmt::format("pipe: {}", std::strerror(errno)));
  const pid_t child = fork();
  if (child < 0) {
    const int why = errno;
    close(ends[0]);
    close(ends[1]);
    throw Error(ExitCode::device, fmt::format("fork: {}", std::strerror(why)));
  }
  if (child == 0) {
    close(ends[0]);
    run_child(ends[1], path, work);
  }
  close(ends[1]);
  std::string answer;
  std::array<char, 65536> block;
  for (;;) {
    const auto n = ::read(ends[0], block.data(), block.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    answer.append(block.data(), static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || answer.empty()) {
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    throw Error(
        ExitCode::file,
        signal == SIGALRM
            ? fmt::format("{}: HDF5 did not finish reading its metadata within {} s", path, kTimeLimit_s)
            : fmt::format("{}: HDF5 crashed on its metadata ({})", path, signal != 0 ? strsignal(signal) : "no answer"),
        "the file is damaged or made to do harm: do not use it");
  }
  if (answer[0] == kDone) return answer.substr(1);
  std::istringstream parts(answer.substr(1));
  std::string what, remedy, where;
  std::getline(parts, what, '\0');
  std::getline(parts, remedy, '\0');
  std::getline(parts, where, '\0');
  throw Error(ExitCode::file, what, remedy).at(where);
}

}  // namespace seer::data::h5
