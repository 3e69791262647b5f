// SPDX-License-Identifier: Apache-2.0
#include "seer/run/append_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "seer/base/error.hpp"

namespace seer::run {

AppendFile::AppendFile(std::string path, Start start, std::string remedy)
    : path_(std::move(path)), remedy_(std::move(remedy)) {
  const bool must_be_new = start == Start::must_be_new;
  const int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (must_be_new ? O_EXCL : 0);
  descriptor_ = ::open(path_.c_str(), flags, 0644);
  if (descriptor_ < 0 && !(must_be_new && errno == EEXIST)) fail("cannot be opened", errno);
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)),
      remedy_(std::move(other.remedy_)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  struct stat before {};
  const bool regular = ::fstat(descriptor_, &before) == 0 && S_ISREG(before.st_mode);
  while (!record.empty()) {
    const auto written = ::write(descriptor_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      if (regular) [[maybe_unused]]
        const int cut = ::ftruncate(descriptor_, before.st_size);
      fail("cannot be written", reason);
    }
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AppendFile::append_durably(std::string_view record) {
  append(record);
  if (::fsync(descriptor_) != 0) fail("cannot be synced", errno);
}

void AppendFile::fail(const char* doing, int reason) const {
  throw Error(ExitCode::file, fmt::format("{} {}: {}", path_, doing, std::strerror(reason)), remedy_);
}

}  // namespace seer::run
