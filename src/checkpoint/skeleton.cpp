// SPDX-License-Identifier: Apache-2.0
#include "skeleton.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/checkpoint/folders.hpp"
#include "seer/h5/file.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace {

namespace fs = std::filesystem;
using h5::Dims;
using h5::File;
using h5::Type;

constexpr const char* kMemoryFolder = "/dev/shm";

/// Upper bound for the bytes that HDF5 writes besides the tensors: headers, names, /state.
std::uint64_t metadata_bytes(const Manifest& manifest, const State& state) {
  std::uint64_t bytes = (std::uint64_t{1} << 18) + state.config_toml.size();
  for (const auto& t : manifest.tensors) bytes += 2048 + t.name.size();
  for (const auto& s : state.shards) bytes += 64 + 2 * s.name.size();
  for (const auto& [name, tensor] : state.method.tensors) bytes += 1024 + tensor.values.size() * sizeof(float);
  return bytes + state.plateau.size() * sizeof(double);
}

/// The folder where the file is laid out: in memory, or, if that is full, the system's folder for temporary files.
/// Checks the room beforehand, since HDF5 must never meet a full file system.
std::string layout_folder(std::uint64_t bytes) {
  std::vector<std::string> tried;
  std::error_code ec;
  for (const auto& folder : {fs::path(kMemoryFolder), fs::temp_directory_path(ec)}) {
    struct statvfs info {};
    if (folder.empty() || statvfs(folder.c_str(), &info) != 0) continue;
    const std::uint64_t free = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
    if (free >= bytes && access(folder.c_str(), W_OK | X_OK) == 0) return folder;
    tried.push_back(fmt::format("{} ({} bytes free)", folder.string(), free));
  }
  throw Error(ExitCode::file,
              fmt::format("no place to lay out a checkpoint, which takes {} bytes: {}", bytes, fmt::join(tried, ", ")),
              fmt::format("free space in {}, or set TMPDIR to a folder with space", kMemoryFolder));
}

void create_objects(File& file, const Manifest& manifest, const State& state) {
  write_state(file, state);
  std::string group;
  for (const auto& t : manifest.tensors) {
    if (t.group != group) file.create_group("/" + t.group);
    group = t.group;
    file.create_dataset(object_name(t.group, t.name), Type::f32, Dims(t.shape.begin(), t.shape.end()));
  }
}

// A limit on file sizes (ulimit -f) would also apply to the file in memory, where a write must not fail.
void check_size_limit(const Manifest& manifest) {
  std::uint64_t wanted = std::uint64_t{1} << 16;
  for (const auto& t : manifest.tensors) wanted += static_cast<std::uint64_t>(t.elements()) * sizeof(float) + 1024;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < wanted) {
    throw Error(ExitCode::file,
                fmt::format("files may have {} bytes here, a checkpoint needs about {}",
                            static_cast<std::uint64_t>(limit.rlim_cur), wanted),
                "raise the limit: ulimit -f unlimited");
  }
}

void copy_stretch(int from, int to, off_t begin, off_t end, const std::string& path) {
  std::vector<char> buffer(std::size_t{1} << 20);
  for (off_t at = begin; at < end;) {
    const auto wanted = std::min<std::size_t>(buffer.size(), static_cast<std::size_t>(end - at));
    const auto n = pread(from, buffer.data(), wanted, at);
    if (n < 0) fail_with_errno("read back", "the layout of a checkpoint");
    ensure(n > 0, "the layout of a checkpoint is shorter than it was");
    for (ssize_t done = 0; done < n;) {
      const auto w = pwrite(to, buffer.data() + done, static_cast<std::size_t>(n - done), at + done);
      if (w < 0 && errno == EINTR) continue;
      if (w <= 0) fail_with_errno("write", path);
      done += w;
    }
    at += n;
  }
}

}  // namespace

std::string object_name(const std::string& group, const std::string& name) {
  return "/" + group + "/" + name;
}

Skeleton::Skeleton(Manifest& manifest, const State& state) {
  check_size_limit(manifest);
  std::string path = layout_folder(metadata_bytes(manifest, state)) + "/seer-checkpoint-XXXXXX";
  fd_ = mkstemp(path.data());
  if (fd_ < 0) fail_with_errno("create", path);
  try {
    auto file = File::create(path);
    create_objects(file, manifest, state);
    file.close();
    const auto written = File::open(path);
    for (auto& t : manifest.tensors) {
      const auto d = written.describe(object_name(t.group, t.name));
      ensure(d.plain && d.type == Type::f32, "a tensor of the checkpoint is not plain");
      t.offset_bytes = d.file_offset;
    }
    struct stat info {};
    if (fstat(fd_, &info) != 0) fail_with_errno("stat", path);
    bytes_ = static_cast<std::uint64_t>(info.st_size);
    manifest.file_bytes = bytes_;
    unlink(path.c_str());
  } catch (...) {
    close(fd_);
    unlink(path.c_str());
    throw;
  }
}

Skeleton::~Skeleton() {
  close(fd_);
}

void Skeleton::copy_to(const std::string& path) const {
  const int to = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (to < 0) fail_with_errno("create", path);
  try {
    const auto end = static_cast<off_t>(bytes_);
    if (ftruncate(to, end) != 0) fail_with_errno("extend", path);
    // A full disk or quota fails here, before any rank has written. On file systems that cannot reserve it fails later.
    if (fallocate(to, 0, 0, end) != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
      fail_with_errno(fmt::format("reserve {} bytes for", bytes_), path);
    }
    for (off_t at = 0; at < end;) {
      const off_t begin = lseek(fd_, at, SEEK_DATA);
      if (begin < 0) break;
      at = lseek(fd_, begin, SEEK_HOLE);
      copy_stretch(fd_, to, begin, std::min(at, end), path);
    }
  } catch (...) {
    close(to);
    throw;
  }
  if (close(to) != 0) fail_with_errno("close", path);
}

}  // namespace seer::checkpoint
