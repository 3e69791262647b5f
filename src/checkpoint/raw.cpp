// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/raw.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/folders.hpp"

namespace seer::checkpoint {
namespace {

/// Checksum of a range of a file. Reads it in small pieces, since checkpoints are verified while the training uses the
/// memory that it has planned.
std::uint64_t checksum_of(const RawFile& file, std::uint64_t begin, std::uint64_t bytes) {
  std::vector<char> buffer(std::min<std::uint64_t>(bytes, std::uint64_t{1} << 20));
  Checksum sum;
  for (std::uint64_t done = 0; done < bytes;) {
    const auto n = std::min<std::uint64_t>(bytes - done, buffer.size());
    file.read(begin + done, buffer.data(), n);
    sum.add(buffer.data(), n);
    done += n;
  }
  return sum.value();
}

}  // namespace

RawFile::RawFile(const std::string& path, Access access)
    : path_(path), fd_(open(path.c_str(), (access == Access::read ? O_RDONLY : O_WRONLY) | O_CLOEXEC)) {
  if (fd_ >= 0) return;
  const std::string problem = fmt::format("{} on {}: {}", path, log::host_name(), std::strerror(errno));
  if (access == Access::read) throw Error(ExitCode::file, problem);
  throw Error(ExitCode::file, "cannot open " + problem,
              "log.run_dir must be a folder that all nodes share and can write");
}

RawFile::~RawFile() {
  close(fd_);
}

void RawFile::read(std::uint64_t offset, void* to, std::uint64_t bytes) const {
  auto* out = static_cast<char*>(to);
  while (bytes > 0) {
    const auto n = pread(fd_, out, std::min<std::uint64_t>(bytes, std::uint64_t{1} << 30), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error(ExitCode::file, fmt::format("{}: at byte {}: {}", path_, offset,
                                              n < 0 ? std::strerror(errno) : "the file ends here"));
    }
    out += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
}

void RawFile::write(std::uint64_t offset, const void* from, std::uint64_t bytes) const {
  const auto* in = static_cast<const char*>(from);
  while (bytes > 0) {
    const auto n = pwrite(fd_, in, std::min<std::uint64_t>(bytes, std::uint64_t{1} << 30), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) fail_with_errno("write", path_);
    in += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
}

void RawFile::sync() const {
  if (fsync(fd_) != 0) fail_with_errno("fsync", path_);
}

std::uint64_t outside_checksum(const std::string& path, const Manifest& manifest) {
  constexpr std::uint64_t kMaxStretch = std::uint64_t{1} << 26;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> inside;
  for (const auto& t : manifest.tensors) {
    inside.emplace_back(t.offset_bytes, t.offset_bytes + static_cast<std::uint64_t>(t.elements()) * sizeof(float));
  }
  inside.emplace_back(manifest.file_bytes, manifest.file_bytes);
  std::sort(inside.begin(), inside.end());
  const RawFile file(path);
  std::vector<std::uint64_t> sums;
  std::uint64_t at = 0;
  for (const auto& [begin, end] : inside) {
    if (begin < at) throw Error(ExitCode::file, fmt::format("{}: tensors overlap at byte {}", path, begin));
    while (at < begin) {
      const auto bytes = std::min(begin - at, kMaxStretch);
      sums.push_back(checksum_of(file, at, bytes));
      at += bytes;
    }
    at = end;
  }
  return checksum(sums.data(), sums.size() * sizeof(std::uint64_t));
}

std::string verify_share(const std::string& folder, const Manifest& manifest, int part, int parts) {
  const std::string path = folder + "/state.h5";
  try {
    if (part == 0 && outside_checksum(path, manifest) != manifest.outside_xxh3) {
      return fmt::format("{}: the bytes outside the tensors (state, names) have another checksum than when written",
                         path);
    }
    std::int64_t total = 0, before = 0;
    for (const auto& t : manifest.tensors) total += t.elements();
    const RawFile file(path);
    for (const auto& t : manifest.tensors) {
      for (const auto& p : t.pieces) {
        // All elements are divided evenly among the parts. The part that holds a piece's first element verifies it.
        const auto share = static_cast<double>(before) / static_cast<double>(total) * parts;
        const bool mine = std::min(static_cast<int>(share), parts - 1) == part;
        before += p.end - p.begin;
        if (!mine) continue;
        const auto begin = t.offset_bytes + static_cast<std::uint64_t>(p.begin) * sizeof(float);
        if (checksum_of(file, begin, static_cast<std::uint64_t>(p.end - p.begin) * sizeof(float)) != p.xxh3) {
          return fmt::format("{}: /{}/{}, elements {} to {}, have another checksum than when written", path, t.group,
                             t.name, p.begin, p.end);
        }
      }
    }
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace seer::checkpoint
