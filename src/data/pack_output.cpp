// SPDX-License-Identifier: Apache-2.0
#include "pack_output.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/data/shard_writer.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Numbers of the files <name>-<number>.h5<suffix> in the folder, ascending.
std::vector<std::size_t> numbers_in(const std::string& folder, const std::string& name, const std::string& suffix) {
  std::vector<std::size_t> numbers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    auto file = entry.path().filename().string();
    if (!file.ends_with(suffix)) continue;
    file.erase(file.size() - suffix.size());
    if (const auto parsed = parse_shard_name(file); parsed && parsed->first == name) numbers.push_back(parsed->second);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// The existing shards to keep next to the new ones. Checks each of them.
std::vector<Manifest::File> files_to_keep(const std::string& folder, const std::string& name,
                                          const comm::Communicator& alone) {
  const auto manifest = read_manifest(folder, name);
  if (manifest && !manifest->complete) {  // the manifest of an unfinished pack lists the shards that it was to keep
    if (manifest->files.empty() && !numbers_in(folder, name, "").empty()) {
      throw Error(ExitCode::input,
                  fmt::format("{}: a call that was to replace {}-*.h5 did not finish; old and new ones may be there",
                              folder, name),
                  "give --replace, and pack again what shall be there; or move these files away");
    }
    for (const auto& file : manifest->files) {
      const auto path = fs::path(folder) / file.name;
      std::error_code error;
      if (fs::file_size(path, error) == file.bytes && !error) continue;
      throw Error(ExitCode::file, fmt::format("{}: missing, or not the file that an earlier call found", path.string()),
                  "get it back, or pack all again with --replace");
    }
    return manifest->files;
  }
  std::vector<std::string> paths;
  std::vector<ChosenShard> chosen;
  for (const auto number : numbers_in(folder, name, "")) {
    paths.push_back(shard_path(folder, name, number));
    chosen.push_back({paths.back(), true});
  }
  std::vector<ShardInfo> shards;
  read_shard_infos(paths, alone, [&](ShardInfo info) { shards.push_back(std::move(info)); });
  check_sets(shards, chosen);
  std::vector<Manifest::File> files;
  for (const auto& s : shards) files.push_back({fs::path(s.path).filename(), s.set.id, s.images, s.file_bytes});
  return files;
}

}  // namespace

/// If the file system has no locks, does nothing.
SetOutput::Lock::Lock(const std::string& folder, const std::string& name)
    : path_(fmt::format("{}/.{}.lock", folder, name)) {
  for (;;) {
    file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file_ < 0) return;
    struct flock whole {};
    whole.l_type = F_WRLCK;
    if (::fcntl(file_, F_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES)) {
      ::close(file_);
      throw Error(ExitCode::input, fmt::format("{}: another process writes {}-*.h5 there", folder, name),
                  "wait until it has ended, or choose another folder or --split");
    }
    struct stat held {};
    struct stat there {};
    if (::fstat(file_, &held) == 0 && ::stat(path_.c_str(), &there) == 0 && held.st_ino == there.st_ino) return;
    ::close(file_);  // its owner has removed the file in the meantime
  }
}
SetOutput::Lock::~Lock() {
  if (file_ < 0) return;
  ::unlink(path_.c_str());
  ::close(file_);
}

SetOutput::SetOutput(const std::string& folder, const std::string& name, Existing existing,
                     const comm::Communicator& alone)
    : folder_(folder), name_(name) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ExitCode::file, fmt::format("{}: cannot be made: {}", folder, error.message()));
  lock_.emplace(folder, name);
  const std::string probe = fmt::format("{}/.seer-write-test.{}", folder, ::getpid());
  if (std::FILE* file = std::fopen(probe.c_str(), "w")) {
    std::fclose(file);
    std::remove(probe.c_str());
  } else {
    throw Error(ExitCode::file, fmt::format("{}: not writable: {}", folder, std::strerror(errno)));
  }
  if (const auto there = numbers_in(folder, name, "").size(); existing == Existing::refuse && there > 0) {
    throw Error(ExitCode::input, fmt::format("{} holds {} shards {}-*.h5 already", folder, there, name),
                "give --replace, and they go when the new ones are complete, or --append, and the new ones come behind "
                "them; or choose another folder or --split");
  }
  if (existing == Existing::append) kept_ = files_to_keep(folder, name, alone);
  for (const auto& file : kept_)
    first_number_ = std::max(first_number_, parse_shard_name(file.name).value().second + 1);
  const auto unfinished = numbers_in(folder, name, kTemporarySuffix);
  for (const auto number : unfinished) fs::remove(shard_path(folder, name, number) + kTemporarySuffix, error);
  if (!unfinished.empty())
    log::info(fmt::format("removed {} unfinished shards of an interrupted call", unfinished.size()));
}

std::uint64_t SetOutput::images() const {
  std::uint64_t images = 0;
  for (const auto& file : kept_) images += file.images;
  return images;
}

void SetOutput::begin_naming() const {
  write_manifest(folder_, name_, {false, kept_});
  std::size_t removed = 0;
  for (const auto number : numbers_in(folder_, name_, "")) {
    const auto path = shard_path(folder_, name_, number);
    const auto file = fs::path(path).filename().string();
    if (std::any_of(kept_.begin(), kept_.end(), [&](const auto& kept) { return kept.name == file; })) continue;
    if (std::remove(path.c_str()) != 0) throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
    ++removed;
  }
  if (removed > 0) log::info(fmt::format("removed {} shards of an earlier call", removed));
}

void SetOutput::end_naming(const std::string& set, const std::vector<std::uint64_t>& images) const {
  sync_to_disk(folder_);
  Manifest manifest{true, kept_};
  for (std::size_t i = 0; i < images.size(); ++i) {
    const fs::path path = shard_path(folder_, name_, first_number_ + i);
    manifest.files.push_back({path.filename(), set, images[i], fs::file_size(path)});
  }
  write_manifest(folder_, name_, manifest);
}

void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects,
                   Existing existing) {
  const std::string path = folder + "/rejects.jsonl", temporary = path + kTemporarySuffix;
  std::ofstream out(temporary, std::ios::binary);
  std::ifstream before(path);
  for (std::string line; std::getline(before, line);) {
    const auto old = json::parse(line, nullptr, false);
    if (!old.is_object() || !old.contains("split")) continue;
    if (old["split"] != name || existing == Existing::append) out << line << '\n';
  }
  for (const auto& r : rejects) {
    const json object = {{"split", name}, {"path", r.path}, {"reason", r.reason}, {"bytes", r.bytes}};
    // Paths are bytes. Those that are not UTF-8 get the replacement character.
    out << object.dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
  }
  out.close();
  if (!out) throw Error(ExitCode::file, fmt::format("{}: cannot be written: {}", temporary, std::strerror(errno)));
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
}

void want_room(const std::string& folder, std::uint64_t bytes) {
  struct statvfs info {};
  if (::statvfs(folder.c_str(), &info) != 0) return;  // then the writes themselves will fail
  const auto free_bytes = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (free_bytes < bytes) {
    throw Error(ExitCode::file,
                fmt::format("{}: no space left: the images need {} bytes, {} are free", folder, bytes, free_bytes),
                "make room, or write to another file system");
  }
}

}  // namespace seer::data
