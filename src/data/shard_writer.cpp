// SPDX-License-Identifier: Apache-2.0
#include "seer/data/shard_writer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "seer/base/error.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {
namespace {

constexpr std::size_t kBuffer_bytes = std::size_t{8} << 20;

[[noreturn]] void fail(const std::string& path, const char* what,
                       std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}: {}", path, what, std::strerror(errno)), "", where);
}

template <class T, class F>
void column(h5::File& file, const std::string& name, h5::Type type, const std::vector<ShardEntry>& entries, F&& value) {
  std::vector<T> values;
  values.reserve(entries.size());
  for (const auto& e : entries) values.push_back(value(e));
  file.create_dataset(name, type, {values.size()});
  file.write(name, type, 0, values.size(), values.data());
}

}  // namespace

void sync_to_disk(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(path, "opening to sync");
  const int status = ::fsync(fd);
  const int why = errno;
  ::close(fd);
  errno = why;
  // Some file systems cannot sync a folder. Accept that: the guarantee is theirs.
  if (status != 0 && why != EINVAL && why != ENOTSUP) fail(path, "fsync");
}

void ShardWriter::Remover::operator()(std::string* path) const {
  std::remove(path->c_str());
  delete path;
}

ShardWriter::ShardWriter(const std::string& path, const std::vector<ShardEntry>& entries,
                         const std::vector<std::string>& classes, const SetMark& set)
    : path_(path), temporary_(new std::string(path + kTemporarySuffix)), images_(entries.size()) {
  file_ = std::make_unique<h5::File>(h5::File::create(*temporary_));
  h5::File& f = *file_;
  f.set("/", "format", std::string(kShardFormat));
  const bool targets = std::ranges::any_of(entries, [](const ShardEntry& e) { return !e.targets.empty(); });
  f.set("/", "version", targets ? kTargetsVersion : kShardVersion);
  if (!classes.empty()) f.set("/", "classes", classes);
  if (!set.id.empty()) {
    f.set("/", "set", set.id);
    f.set("/", "set_shards", static_cast<std::int64_t>(set.shards));
    f.set("/", "set_number", static_cast<std::int64_t>(set.number));
  }
  if (set.max_pixels > 0) f.set("/", "max_pixels", static_cast<std::int64_t>(set.max_pixels));
  f.create_group("/images");
  column<std::uint32_t>(f, "/images/width", h5::Type::u32, entries, [](const ShardEntry& e) { return e.width; });
  column<std::uint32_t>(f, "/images/height", h5::Type::u32, entries, [](const ShardEntry& e) { return e.height; });
  column<std::uint64_t>(f, "/images/checksum", h5::Type::u64, entries, [](const ShardEntry& e) { return e.checksum; });
  if (targets) {
    Targets all;
    for (const auto& e : entries) all.add(e.targets);
    f.create_dataset("/images/target_begin", h5::Type::u64, {all.begins.size()});
    f.write("/images/target_begin", h5::Type::u64, 0, all.begins.size(), all.begins.data());
    f.create_dataset("/images/target", h5::Type::i32, {all.values.size()});
    f.write("/images/target", h5::Type::i32, 0, all.values.size(), all.values.data());
  } else if (!classes.empty()) {
    column<std::int32_t>(f, "/images/label", h5::Type::i32, entries, [](const ShardEntry& e) { return e.label; });
  }
  std::vector<std::uint64_t> offsets{0};
  for (const auto& e : entries) offsets.push_back(offsets.back() + e.bytes);
  total_ = offsets.back();
  f.create_dataset("/images/offset", h5::Type::u64, {offsets.size()});
  f.write("/images/offset", h5::Type::u64, 0, offsets.size(), offsets.data());
  f.create_dataset("/images/bytes", h5::Type::u8, {total_});
}

ShardWriter::~ShardWriter() = default;

void ShardWriter::append(std::span<const std::uint8_t> image, const std::string& name) {
  ensure(file_ != nullptr && image.size() <= total_ - written_ - pending_.size(),
         "more bytes than the shard's entries");
  if (!name.empty()) names_.push_back(name);
  pending_.insert(pending_.end(), image.begin(), image.end());
  if (pending_.size() >= kBuffer_bytes) write_out();
}

void ShardWriter::write_out() {
  file_->write("/images/bytes", h5::Type::u8, written_, pending_.size(), pending_.data());
  written_ += pending_.size();
  pending_.clear();
}

void ShardWriter::finish() {
  write_out();
  ensure(written_ == total_, "fewer bytes than the shard's entries");
  if (!names_.empty()) {
    ensure(names_.size() == images_, "names for some images only");
    file_->create_strings("/images/name", names_);
  }
  file_->close();
  file_.reset();
  pending_ = {};
  sync_to_disk(*temporary_);
}

void ShardWriter::publish() {
  ensure(file_ == nullptr && temporary_ != nullptr, "only a finished shard is published");
  if (std::rename(temporary_->c_str(), path_.c_str()) != 0) fail(*temporary_, "renaming");
  delete temporary_.release();
}

}  // namespace seer::data
