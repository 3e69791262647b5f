// SPDX-License-Identifier: Apache-2.0
// Makes this rank's writes into unfinished checkpoints fail, as on a full disk. Only one file of an executable may
// include this.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>

namespace seer::test {

/// n > 0: the n-th write from now fails; negative: all writes fail; 0: none. Read by all threads that write.
inline std::atomic<int> failing_write = 0;

inline bool fails_now(int fd) {
  if (failing_write == 0) return false;
  char path[4096];
  const auto link = "/proc/self/fd/" + std::to_string(fd);
  const auto length = readlink(link.c_str(), path, sizeof path);
  if (length < 0 ||
      std::string(path, static_cast<std::size_t>(length)).find("/checkpoints/.tmp-") == std::string::npos) {
    return false;
  }
  return failing_write < 0 || --failing_write == 0;
}

}  // namespace seer::test

// The linker prefers a function of the executable to that of the C library.
extern "C" ssize_t pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  if (seer::test::fails_now(fd)) {
    errno = ENOSPC;
    return -1;
  }
  return syscall(SYS_pwrite64, fd, data, bytes, offset);
}
