// SPDX-License-Identifier: Apache-2.0
#include "seer/train/run_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::train {

RunLock::RunLock(const std::string& run_dir) {
  const std::string path = run_dir + "/lock";
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)),
                "set log.run_dir to a folder you may write to");
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) {
      log::warn(fmt::format("{} cannot be locked ({}): see to it that no other run uses {}", path, std::strerror(errno),
                            run_dir));
      return;
    }
    char owner[256] = {};
    const auto length = ::pread(descriptor_, owner, sizeof owner - 1, 0);
    ::close(descriptor_);
    throw Error(ExitCode::input, fmt::format("another run uses {}: {}", run_dir, length > 0 ? owner : "unknown"),
                "wait for it or stop it, or choose another log.run_dir");
  }
  const std::string owner = fmt::format("process {} on {}", ::getpid(), log::host_name());
  if (::ftruncate(descriptor_, 0) != 0 ||
      ::pwrite(descriptor_, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size())) {
    log::warn(fmt::format("{}: the lock's owner cannot be written: {}", path, std::strerror(errno)));
  }
}

RunLock::~RunLock() {
  ::close(descriptor_);
}

}  // namespace seer::train
