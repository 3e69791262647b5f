// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <span>
#include <sstream>

#include "seer/base/error.hpp"
#include "seer/comm/progress.hpp"
#include "seer/h5/file.hpp"

namespace seer::h5 {
namespace {

constexpr std::size_t kFiles_a_child = 500;             // so HDF5's own memory stays far below the limit
constexpr unsigned kTimeLimit_s = 120;                  // for each file
constexpr rlim_t kMemoryLimit_bytes = rlim_t{1} << 30;  // beyond what the process maps already
constexpr char kDone = 'd', kFailed = 'f';

void limit_child() {
  // Remove the parent's handlers (Open MPI's prints stacks): a crash is expected here.
  for (int s : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTERM, SIGALRM}) std::signal(s, SIG_DFL);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
#ifndef __SANITIZE_ADDRESS__  // ASan's shadow memory maps terabytes
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

std::string answer_of(const std::string& path, const std::function<std::string(const File&)>& work) {
  try {
    return kDone + work(File::open(path));
  } catch (const Error& e) {
    return fmt::format("{}{}{}{}{}{}", kFailed, e.what(), '\0', e.remedy(), '\0', e.where());
  } catch (const std::exception& e) {  // e.g. bad_alloc at the memory limit
    return fmt::format("{}{}: reading its metadata failed: {}{}{}", kFailed, path, e.what(), '\0', '\0');
  }
}

/// The forked process and the end of the pipe from which its answers come. An answer is its length, then its text.
class Child {
 public:
  Child(std::span<const std::string> paths, const std::function<std::string(const File&)>& work) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Error(ExitCode::device, fmt::format("pipe: {}", std::strerror(errno)));
    from_ = ends[0];
    process_ = fork();
    const int why = errno;
    if (process_ == 0) {
      limit_child();
      for (const auto& path : paths) {
        alarm(kTimeLimit_s);
        const auto answer = answer_of(path, work);
        const std::uint64_t length = answer.size();
        send(ends[1], std::string(reinterpret_cast<const char*>(&length), sizeof length) + answer);
      }
      _exit(0);  // no destructors: the child must not end the parent's MPI and HDF5
    }
    close(ends[1]);
    if (process_ > 0) return;
    close(from_);
    throw Error(ExitCode::device, fmt::format("fork: {}", std::strerror(why)));
  }
  ~Child() {
    if (process_ > 0) kill(process_, SIGKILL);
    end();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  /// Returns the next answer; "" if no more come.
  std::string answer() {
    std::uint64_t length = 0;
    const auto head = receive(sizeof length);
    head.copy(reinterpret_cast<char*>(&length), sizeof length);
    const auto text = receive(length);
    return head.size() < sizeof length || text.size() < length ? "" : text;
  }
  /// Waits for the child. Returns the signal that ended it, or 0.
  int end() {
    int status = 0;
    if (process_ > 0) {
      close(from_);
      while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
      }
    }
    process_ = 0;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

 private:
  /// Reads that many bytes, or fewer if no more come. In pieces, because the number may be wrong.
  std::string receive(std::uint64_t bytes) const {
    std::string text;
    while (text.size() < bytes) {
      char piece[65536];
      const auto n = ::read(from_, piece, std::min<std::size_t>(bytes - text.size(), sizeof piece));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      text.append(piece, static_cast<std::size_t>(n));
    }
    return text;
  }
  int from_ = -1;
  pid_t process_ = 0;
};

[[noreturn]] void fail_of(const std::string& path, int signal) {
  const auto what = signal == SIGALRM ? fmt::format("did not finish reading the metadata within {} s", kTimeLimit_s)
                                      : fmt::format("crashed while it read the metadata ({})",
                                                    signal != 0 ? strsignal(signal) : "no answer");
  throw Error(ExitCode::file, fmt::format("{}: HDF5 {}", path, what),
              "the file is damaged or malicious: do not use it");
}

}  // namespace

void trial_each(const std::vector<std::string>& paths, const std::function<std::string(const File&)>& work,
                const std::function<void(std::size_t, const std::string&)>& done) {
  for (std::size_t first = 0; first < paths.size(); first += kFiles_a_child) {
    const auto count = std::min(kFiles_a_child, paths.size() - first);
    Child child({paths.data() + first, count}, work);
    for (std::size_t i = first; i < first + count; ++i) {
      const comm::Reading reading(paths[i]);
      const auto answer = child.answer();
      if (answer.empty()) fail_of(paths[i], child.end());
      if (answer[0] == kDone) {
        done(i, answer.substr(1));
        continue;
      }
      std::istringstream parts(answer.substr(1));
      std::string what, remedy, where;
      for (auto* part : {&what, &remedy, &where}) std::getline(parts, *part, '\0');
      throw Error(ExitCode::file, what, remedy).at(where);
    }
    child.end();
  }
}

std::string trial(const std::string& path, const std::function<std::string(const File&)>& work) {
  std::string result;
  trial_each({path}, work, [&](std::size_t, const std::string& answer) { result = answer; });
  return result;
}

}  // namespace seer::h5
