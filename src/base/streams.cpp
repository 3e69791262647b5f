// SPDX-License-Identifier: Apache-2.0
#include "seer/base/streams.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace seer {
namespace {

rlimit limit_now() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) limit = {1024, 1024};
  return limit;
}

}  // namespace

void raise_open_file_limit() {
  rlimit limit = limit_now();
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::size_t spare_open_files() {
  namespace fs = std::filesystem;
  std::size_t open = 0;
  std::error_code error;
  for (fs::directory_iterator file("/proc/self/fd", error), end; !error && file != end; file.increment(error)) ++open;
  const auto limit = static_cast<std::size_t>(limit_now().rlim_cur);
  return limit > open ? limit - open : 0;
}

std::string open_files_remedy(const std::string& error) {
  if (error.find("Too many open files in system") != std::string::npos)  // ENFILE
    return "the machine's limit on open files (fs.file-max) is reached: run fewer processes on it";
  if (error.find("Too many open files") == std::string::npos) return "";
  return "the limit on open files of a process is " + std::to_string(limit_now().rlim_cur) +
         " here (ulimit -Hn): raise it where the program is started (limits.conf, LimitNOFILE, --ulimit nofile)";
}

}  // namespace seer

namespace seer::streams {
namespace {

std::atomic<int> first_error{0};
char launcher_pipe[64] = "";  ///< path of the pipe that mpirun writes our output to, or ""; outlives the last flush

/// Open MPI's mpirun ends the job after a few lines that it cannot forward, so we write nothing once nobody reads its
/// pipe.
bool launcher_has_no_reader() {
  if (launcher_pipe[0] == '\0') return false;
  const int file = ::open(launcher_pipe, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return errno == ENXIO;
  ::close(file);
  return false;
}

/// Returns 0, or the errno that stopped the write.
int write_all(const char* text, std::size_t bytes) {
  if (launcher_has_no_reader()) return EPIPE;
  while (bytes > 0) {
    const auto n = ::write(STDOUT_FILENO, text, bytes);
    if (n > 0) {
      text += n;
      bytes -= static_cast<std::size_t>(n);
    } else if (n < 0 && errno == EAGAIN) {
      pollfd room{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
      ::poll(&room, 1, -1);
    } else if (n == 0 || errno != EINTR) {
      return n == 0 ? EIO : errno;
    }
  }
  return 0;
}

ssize_t write_or_drop(void*, const char* text, std::size_t bytes) {
  int none = 0;
  if (const int error = write_all(text, bytes); error != 0) first_error.compare_exchange_strong(none, error);
  return static_cast<ssize_t>(bytes);
}

}  // namespace

void secure() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // Opened in the wrong direction on purpose, so that text for a closed standard output still counts as lost.
    if (::fcntl(stream, F_GETFD) < 0) ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  if (std::getenv("OMPI_COMM_WORLD_RANK") != nullptr) {
    const auto path = fmt::format("/proc/{}/fd/1", getppid());
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0 && S_ISFIFO(info.st_mode))
      std::snprintf(launcher_pipe, sizeof launcher_pipe, "%s", path.c_str());
  }
  std::FILE* const out = fopencookie(nullptr, "w", {.read = {}, .write = write_or_drop, .seek = {}, .close = {}});
  if (out == nullptr) return;
  std::setvbuf(out, nullptr, isatty(STDOUT_FILENO) != 0 ? _IOLBF : _IOFBF, BUFSIZ);
  stdout = out;
}

int output_error() {
  std::fflush(stdout);
  return first_error;
}

}  // namespace seer::streams
