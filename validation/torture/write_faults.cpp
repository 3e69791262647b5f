// SPDX-License-Identifier: Apache-2.0
// Loaded with LD_PRELOAD into the ranks of a tortured run: makes the file system fail on demand. It stands before the
// C library's calls that write (write, pwrite, writev, pwritev, fallocate), sync (fsync, fdatasync), rename and open
// for writing (open, openat, mkdir). The n-th and following calls of the class under test that concern a path fail.
//   WRITE_FAULT_CALL    write, sync, rename or open
//   WRITE_FAULT_ERROR   ENOSPC, EIO, EDQUOT or EROFS; SHORT: half of what was to be written is, without an error;
//                       KILL: the process kills itself instead of making the call;
//                       HOLD: the call is made once the file WRITE_FAULT_SIGN, written here, is removed
//   WRITE_FAULT_PATH    a piece of the paths concerned
//   WRITE_FAULT_AFTER   calls that still succeed (0)
//   WRITE_FAULT_COUNT   calls that then fail (1)
//   WRITE_FAULT_RANK    the rank it happens to; left out: every rank
// Nothing happens without WRITE_FAULT_CALL. Each rank counts its own calls.
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace {

enum class Call { none, write, sync, rename, open };

struct Settings {
  Call call = Call::none;
  int error = 0;
  bool kill = false;
  const char* sign = nullptr;  ///< of HOLD
  const char* path = "";
  long after = 0, count = 1;
};

long number(const char* name, long otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtol(text, nullptr, 10);
}

Settings read_settings() {
  Settings s;
  const char* call = std::getenv("WRITE_FAULT_CALL");
  if (call == nullptr) return s;
  const long rank = number("WRITE_FAULT_RANK", -1);
  if (rank >= 0 && rank != number("OMPI_COMM_WORLD_RANK", number("PMIX_RANK", 0))) return s;
  for (const auto& [name, value] : {std::pair{"write", Call::write}, std::pair{"sync", Call::sync},
                                    std::pair{"rename", Call::rename}, std::pair{"open", Call::open}}) {
    if (std::strcmp(call, name) == 0) s.call = value;
  }
  const char* error = std::getenv("WRITE_FAULT_ERROR");
  for (const auto& [name, value] :
       {std::pair{"ENOSPC", ENOSPC}, std::pair{"EIO", EIO}, std::pair{"EDQUOT", EDQUOT}, std::pair{"EROFS", EROFS}}) {
    if (error != nullptr && std::strcmp(error, name) == 0) s.error = value;
  }
  s.kill = error != nullptr && std::strcmp(error, "KILL") == 0;
  if (error != nullptr && std::strcmp(error, "HOLD") == 0) s.sign = std::getenv("WRITE_FAULT_SIGN");
  if (const char* path = std::getenv("WRITE_FAULT_PATH")) s.path = path;
  s.after = number("WRITE_FAULT_AFTER", 0);
  s.count = number("WRITE_FAULT_COUNT", 1);
  return s;
}

const Settings& settings() {
  static const Settings s = read_settings();
  return s;
}

/// Whether this call is to fail: it is of the class under test, concerns the path, and its turn has come.
bool strikes(Call call, const char* path) {
  static std::atomic<long> calls{0};
  const auto& s = settings();
  if (call != s.call || path == nullptr || std::strstr(path, s.path) == nullptr) return false;
  const long n = calls++;
  if (n < s.after || n >= s.after + s.count) return false;
  if (s.kill) raise(SIGKILL);
  if (s.sign == nullptr) return true;
  close(creat(s.sign, 0666));
  while (access(s.sign, F_OK) == 0) usleep(2000);
  return false;
}

bool strikes(Call call, int descriptor) {
  if (call != settings().call) return false;
  char link[64], path[PATH_MAX];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const auto length = readlink(link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = '\0';
  return strikes(call, path);
}

bool is_short() {
  return settings().error == 0;
}

template <class Result>
Result fail() {
  errno = settings().error;
  return -1;
}

template <class Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool writes(int flags) {
  return (flags & (O_WRONLY | O_RDWR | O_CREAT)) != 0;
}

mode_t mode_of(int flags, va_list arguments) {
  return (flags & O_CREAT) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

// A vector of buffers is cut short by writing only half of its first one.
size_t first_half(const iovec* parts, int count) {
  return count > 0 ? parts[0].iov_len / 2 : 0;
}

}  // namespace

#define NEXT(name) static const auto real = next<decltype(&::name)>(#name)

extern "C" {

ssize_t write(int fd, const void* data, size_t bytes) {
  NEXT(write);
  if (!strikes(Call::write, fd)) return real(fd, data, bytes);
  return is_short() ? real(fd, data, (bytes + 1) / 2) : fail<ssize_t>();
}

ssize_t pwrite(int fd, const void* data, size_t bytes, off_t at) {
  NEXT(pwrite);
  if (!strikes(Call::write, fd)) return real(fd, data, bytes, at);
  return is_short() ? real(fd, data, (bytes + 1) / 2, at) : fail<ssize_t>();
}

ssize_t pwrite64(int fd, const void* data, size_t bytes, off64_t at) {
  NEXT(pwrite64);
  if (!strikes(Call::write, fd)) return real(fd, data, bytes, at);
  return is_short() ? real(fd, data, (bytes + 1) / 2, at) : fail<ssize_t>();
}

ssize_t writev(int fd, const iovec* parts, int count) {
  NEXT(writev);
  if (!strikes(Call::write, fd)) return real(fd, parts, count);
  return is_short() ? write(fd, parts[0].iov_base, first_half(parts, count)) : fail<ssize_t>();
}

ssize_t pwritev(int fd, const iovec* parts, int count, off_t at) {
  NEXT(pwritev);
  if (!strikes(Call::write, fd)) return real(fd, parts, count, at);
  return is_short() ? pwrite(fd, parts[0].iov_base, first_half(parts, count), at) : fail<ssize_t>();
}

ssize_t pwritev64(int fd, const iovec* parts, int count, off64_t at) {
  NEXT(pwritev64);
  if (!strikes(Call::write, fd)) return real(fd, parts, count, at);
  return is_short() ? pwrite(fd, parts[0].iov_base, first_half(parts, count), at) : fail<ssize_t>();
}

int fallocate(int fd, int mode, off_t at, off_t bytes) {
  NEXT(fallocate);
  return !is_short() && strikes(Call::write, fd) ? fail<int>() : real(fd, mode, at, bytes);
}

int fallocate64(int fd, int mode, off64_t at, off64_t bytes) {
  NEXT(fallocate64);
  return !is_short() && strikes(Call::write, fd) ? fail<int>() : real(fd, mode, at, bytes);
}

int fsync(int fd) {
  NEXT(fsync);
  return strikes(Call::sync, fd) ? fail<int>() : real(fd);
}

int fdatasync(int fd) {
  NEXT(fdatasync);
  return strikes(Call::sync, fd) ? fail<int>() : real(fd);
}

int rename(const char* from, const char* to) noexcept {
  NEXT(rename);
  return strikes(Call::rename, to) ? fail<int>() : real(from, to);
}

int mkdir(const char* path, mode_t mode) noexcept {
  NEXT(mkdir);
  return strikes(Call::open, path) ? fail<int>() : real(path, mode);
}

int open(const char* path, int flags, ...) {
  NEXT(open);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return writes(flags) && strikes(Call::open, path) ? fail<int>() : real(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  NEXT(open64);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return writes(flags) && strikes(Call::open, path) ? fail<int>() : real(path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  NEXT(openat);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return writes(flags) && strikes(Call::open, path) ? fail<int>() : real(folder, path, flags, mode);
}

}  // extern "C"
