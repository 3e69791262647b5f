// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/raw.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <random>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::checkpoint {
namespace {

constexpr std::uint64_t kAtOnce = std::uint64_t{1} << 30;  // Linux transfers no more than about 2 GiB in one call

constexpr int kOpenFlags[] = {O_RDONLY, O_WRONLY, O_WRONLY | O_CREAT | O_TRUNC};  // per Access

/// Calls pread or pwrite until all bytes are transferred, or none by one call; `offset` is then where. Returns what the
/// last call returned.
ssize_t transfer(auto call, int fd, std::uint64_t& offset, auto* bytes, std::uint64_t left) {
  ssize_t n = 1;
  while (left > 0) {
    n = call(fd, bytes, std::min(left, kAtOnce), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    bytes += n;
    offset += static_cast<std::uint64_t>(n);
    left -= static_cast<std::uint64_t>(n);
  }
  return n;
}

}  // namespace

void fail_with_errno(const std::string& call, const std::string& path, std::source_location where) {
  const int error = errno;
  const bool full = error == ENOSPC || error == EDQUOT;
  throw Error(ExitCode::file, fmt::format("cannot {} {}: {}", call, path, std::strerror(error)),
              full ? "free space, lower checkpoint.keep_last, or move log.run_dir to a larger file system" : "", where);
}

RawFile::RawFile(const std::string& path, Access access)
    : path_(path), fd_(open(path.c_str(), kOpenFlags[static_cast<int>(access)] | O_CLOEXEC, 0666)) {
  if (fd_ >= 0) return;
  if (access == Access::create) fail_with_errno("create", path);
  const std::string problem = fmt::format("{} on {}: {}", path, log::host_name(), std::strerror(errno));
  if (access == Access::read) throw Error(ExitCode::file, problem);
  throw Error(ExitCode::file, "cannot open " + problem,
              "log.run_dir must be a folder that all nodes share and can write");
}

RawFile::~RawFile() {
  close(fd_);
}

void RawFile::read(std::uint64_t offset, void* to, std::uint64_t bytes) const {
  const auto n = transfer(pread, fd_, offset, static_cast<char*>(to), bytes);
  if (n <= 0)
    throw Error(ExitCode::file,
                fmt::format("{}: at byte {}: {}", path_, offset, n < 0 ? std::strerror(errno) : "the file ends here"));
}

void RawFile::write(std::uint64_t offset, const void* from, std::uint64_t bytes) const {
  const auto n = transfer(pwrite, fd_, offset, static_cast<const char*>(from), bytes);
  if (n == 0) errno = EIO;
  if (n <= 0) fail_with_errno("write", path_);
}

void RawFile::sync() const {
  // Some network file systems cannot sync folders and return EINVAL; their renames are durable without it.
  if (fsync(fd_) != 0 && errno != EINVAL) fail_with_errno("sync", path_);
}

void write_text(const std::string& path, const std::string& text) {
  const RawFile file(path, RawFile::Access::create);
  file.write(0, text.data(), text.size());
  file.sync();
}

void rename_durably(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail_with_errno("rename to", to.string());
  RawFile(to.has_parent_path() ? to.parent_path() : ".").sync();
}

void replace_file(const std::string& path, const std::function<void(const std::string& temporary)>& write) {
  const std::string temporary = path + ".tmp";
  try {
    write(temporary);
    RawFile(temporary).sync();
    rename_durably(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

std::string random_name() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace seer::checkpoint
