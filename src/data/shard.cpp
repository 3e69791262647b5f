// SPDX-License-Identifier: Apache-2.0
#include "seer/data/shard.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "seer/base/error.hpp"

namespace seer::data {
namespace {

constexpr const char* kRemedy = "pack it again, or leave it out";

[[noreturn]] void fail(const std::string& path, const std::string& what,
                       std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}", path, what), kRemedy, where);
}

void want_length(const h5::File& file, const char* name, std::uint64_t found, std::uint64_t images,
                 std::uint64_t more) {
  if (found != images + more)
    fail(file.path(), fmt::format("{} has {} entries, wanted {} ({} /images/width)", name, found, images + more,
                                  more == 0 ? "as many as" : "one more than"));
}

// Checks that `name` is a plain one-dimensional array of this type.
h5::Description array(const h5::File& file, const char* name, h5::Type type, const char* wanted) {
  if (!file.exists(name)) fail(file.path(), fmt::format("has no {}", name));
  auto d = file.describe(name);
  if (d.type != type) fail(file.path(), fmt::format("{} is of another type, wanted {}", name, wanted));
  if (d.dims.size() != 1) fail(file.path(), fmt::format("{} has {} dimensions, wanted 1", name, d.dims.size()));
  if (!d.plain)
    fail(file.path(), fmt::format("{} is chunked, filtered, external or never written; wanted contiguous", name));
  return d;
}

// Also checks that it has `more` entries more than there are images. Returns where it lies in the file.
std::uint64_t column(const h5::File& file, const char* name, h5::Type type, const char* wanted, std::uint64_t images,
                     std::uint64_t more = 0) {
  const auto d = array(file, name, type, wanted);
  want_length(file, name, d.dims[0], images, more);
  return d.file_offset;
}

void want_range(const h5::File& file, const char* name, std::uint64_t images, std::uint64_t wanted, const char* of) {
  std::uint64_t first = 0, last = 0;
  file.read(name, h5::Type::u64, 0, 1, &first);
  file.read(name, h5::Type::u64, images, 1, &last);
  if (first != 0 || last != wanted)
    fail(file.path(),
         fmt::format("{} runs from {} to {}, wanted 0 to {} (the length of {})", name, first, last, wanted, of));
}

std::uint64_t positive(const h5::File& file, const char* name, std::int64_t least) {
  const auto value = file.get_int("/", name);
  if (value < least) fail(file.path(), fmt::format("attribute {} is {}, wanted at least {}", name, value, least));
  return static_cast<std::uint64_t>(value);
}

SetMark read_mark(const h5::File& file) {
  SetMark mark;
  if (file.has("/", "max_pixels")) mark.max_pixels = positive(file, "max_pixels", 1);
  if (!file.has("/", "set")) return mark;
  mark.id = file.get_string("/", "set");
  mark.shards = positive(file, "set_shards", 1);
  mark.number = positive(file, "set_number", 0);
  if (mark.id.empty() || mark.number >= mark.shards)
    fail(file.path(), fmt::format("says it is shard {} of {} of set \"{}\"", mark.number, mark.shards, mark.id));
  return mark;
}

ShardInfo check_shard(const h5::File& file) {
  if (!file.has("/", "format")) fail(file.path(), "is not a shard: it has no attribute format");
  if (const auto format = file.get_string("/", "format"); format != kShardFormat)
    fail(file.path(), fmt::format("is not a shard: attribute format is \"{}\", wanted \"{}\"", format, kShardFormat));
  const auto version = file.get_int("/", "version");
  if (version != kShardVersion && version != kTargetsVersion)
    fail(file.path(), fmt::format("is a shard of version {}, this program reads versions {} and {}", version,
                                  kShardVersion, kTargetsVersion));
  ShardInfo info;
  info.path = file.path();
  const auto width = array(file, "/images/width", h5::Type::u32, "uint32");
  const auto n = info.images = width.dims[0];
  info.width_offset = width.file_offset;
  info.height_offset = column(file, "/images/height", h5::Type::u32, "uint32", n);
  info.offset_offset = column(file, "/images/offset", h5::Type::u64, "uint64", n, 1);
  info.checksum_offset = column(file, "/images/checksum", h5::Type::u64, "uint64", n);
  const auto bytes = array(file, "/images/bytes", h5::Type::u8, "uint8");
  info.pixels_offset = bytes.file_offset;
  info.pixels_bytes = bytes.dims[0];
  if (file.exists("/images/label")) info.label_offset = column(file, "/images/label", h5::Type::i32, "int32", n);
  const auto several = [&](const std::string& name, std::uint64_t& count, std::uint64_t& offset,
                           std::uint64_t& begin_offset) {
    begin_offset = column(file, (name + "_begin").c_str(), h5::Type::u64, "uint64", n, 1);
    const auto values = array(file, name.c_str(), h5::Type::i32, "int32");
    count = values.dims[0];
    offset = values.file_offset;
    want_range(file, (name + "_begin").c_str(), n, count, name.c_str());
  };
  if (version == kTargetsVersion) {
    several("/images/target", info.targets, info.target_offset, info.target_begin_offset);
    if (info.label_offset != 0) fail(file.path(), "has both /images/label and /images/target, wanted one of them");
    if (file.exists("/images/ignored"))
      several("/images/ignored", info.ignored, info.ignored_offset, info.ignored_begin_offset);
  } else if (file.exists("/images/target")) {
    fail(file.path(), fmt::format("has /images/target, which shards of version {} do not have", version));
  }
  if (file.exists("/images/name")) want_length(file, "/images/name", file.describe_strings("/images/name").first, n, 0);
  if (file.has("/", "classes")) info.classes = file.get_strings("/", "classes");
  info.set = read_mark(file);
  want_range(file, "/images/offset", info.images, info.pixels_bytes, "/images/bytes");
  return info;
}

constexpr std::size_t kBuffer_bytes = std::size_t{8} << 20;

[[noreturn]] void fail_with_errno(const std::string& path, const char* what,
                                  std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}: {}", path, what, std::strerror(errno)), "", where);
}

template <class T>
void write_all(h5::File& file, const std::string& name, h5::Type type, const std::vector<T>& values) {
  file.create_dataset(name, type, {values.size()});
  file.write(name, type, 0, values.size(), values.data());
}

template <class T>
void write_column(h5::File& file, const std::string& name, h5::Type type, const std::vector<ShardEntry>& entries,
                  T ShardEntry::*member) {
  std::vector<T> values;
  for (const auto& e : entries) values.push_back(e.*member);
  write_all(file, name, type, values);
}

}  // namespace

void read_shard_infos(const std::vector<std::string>& paths, const comm::Communicator& alone,
                      const std::function<void(ShardInfo)>& take) {
  h5::trial_each(
      paths, [](const h5::File& file) { return check_shard(file), std::string(); },
      [&](std::size_t i, const std::string&) {
        ShardInfo info = check_shard(h5::File::open(paths[i], &alone));
        std::error_code error;
        if (const auto bytes = std::filesystem::file_size(paths[i], error); !error) info.file_bytes = bytes;
        take(std::move(info));
      });
}

ShardInfo read_shard_info(const std::string& path, const comm::Communicator& alone) {
  ShardInfo info;
  read_shard_infos({path}, alone, [&](ShardInfo read) { info = std::move(read); });
  return info;
}

void sync_to_disk(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_with_errno(path, "opening to sync");
  const int status = ::fsync(fd);
  const int why = errno;
  ::close(fd);
  errno = why;
  // Some file systems cannot sync a folder. Accept that: the guarantee is theirs.
  if (status != 0 && why != EINVAL && why != ENOTSUP) fail_with_errno(path, "fsync");
}

ShardWriter::ShardWriter(const std::string& path, const std::vector<ShardEntry>& entries,
                         const std::vector<std::string>& classes, const SetMark& set)
    : path_(path),
      temporary_(new std::string(path + kTemporarySuffix),
                 [](std::string* name) {
                   std::remove(name->c_str());
                   delete name;
                 }),
      images_(entries.size()) {
  file_ = std::make_unique<h5::File>(h5::File::create(*temporary_));
  h5::File& f = *file_;
  f.set("/", "format", std::string(kShardFormat));
  const bool ignored = std::ranges::any_of(entries, [](const ShardEntry& e) { return !e.ignored.empty(); });
  const bool targets = ignored || std::ranges::any_of(entries, [](const auto& e) { return !e.targets.empty(); });
  f.set("/", "version", targets ? kTargetsVersion : kShardVersion);
  if (!classes.empty()) f.set("/", "classes", classes);
  if (!set.id.empty()) {
    f.set("/", "set", set.id);
    f.set("/", "set_shards", static_cast<std::int64_t>(set.shards));
    f.set("/", "set_number", static_cast<std::int64_t>(set.number));
  }
  if (set.max_pixels > 0) f.set("/", "max_pixels", static_cast<std::int64_t>(set.max_pixels));
  f.create_group("/images");
  write_column(f, "/images/width", h5::Type::u32, entries, &ShardEntry::width);
  write_column(f, "/images/height", h5::Type::u32, entries, &ShardEntry::height);
  write_column(f, "/images/checksum", h5::Type::u64, entries, &ShardEntry::checksum);
  const auto write_several = [&](const std::string& name, std::vector<std::int32_t> ShardEntry::*member) {
    Targets all;
    for (const auto& e : entries) all.add(e.*member);
    write_all(f, name + "_begin", h5::Type::u64, all.begins);
    write_all(f, name, h5::Type::i32, all.values);
  };
  if (ignored) write_several("/images/ignored", &ShardEntry::ignored);
  if (targets) {
    write_several("/images/target", &ShardEntry::targets);
  } else if (!classes.empty()) {
    write_column(f, "/images/label", h5::Type::i32, entries, &ShardEntry::label);
  }
  std::vector<std::uint64_t> offsets{0};
  for (const auto& e : entries) offsets.push_back(offsets.back() + e.bytes);
  total_ = offsets.back();
  write_all(f, "/images/offset", h5::Type::u64, offsets);
  f.create_dataset("/images/bytes", h5::Type::u8, {total_});
}

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
  if (std::rename(temporary_->c_str(), path_.c_str()) != 0) fail_with_errno(*temporary_, "renaming");
  delete temporary_.release();
}

}  // namespace seer::data
