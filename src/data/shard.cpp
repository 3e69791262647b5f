// SPDX-License-Identifier: Apache-2.0
#include "seer/data/shard.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/h5/trial.hpp"

namespace seer::data {
namespace {

constexpr const char* kRemedy = "pack it again, or leave it out";

[[noreturn]] void fail(const std::string& path, const std::string& what,
                       std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}", path, what), kRemedy, where);
}

// Checks that `name` is a plain one-dimensional array of this type. Returns its description.
h5::Description array(const h5::File& file, const std::string& name, h5::Type type, const char* wanted) {
  if (!file.exists(name)) fail(file.path(), fmt::format("has no {}", name));
  auto d = file.describe(name);
  if (d.type != type) fail(file.path(), fmt::format("{} is of another type, wanted {}", name, wanted));
  if (d.dims.size() != 1) fail(file.path(), fmt::format("{} has {} dimensions, wanted 1", name, d.dims.size()));
  if (!d.plain) {
    fail(file.path(), fmt::format("{} is chunked, filtered, external or never written; wanted contiguous", name));
  }
  return d;
}

void want_length(const h5::File& file, const char* name, const h5::Description& d, std::uint64_t wanted,
                 const char* because) {
  if (d.dims[0] != wanted) {
    fail(file.path(), fmt::format("{} has {} entries, wanted {} ({})", name, d.dims[0], wanted, because));
  }
}

void want_range(const h5::File& file, const char* name, std::uint64_t images, std::uint64_t wanted, const char* of) {
  std::uint64_t first = 0, last = 0;
  file.read(name, h5::Type::u64, 0, 1, &first);
  file.read(name, h5::Type::u64, images, 1, &last);
  if (first != 0 || last != wanted) {
    fail(file.path(),
         fmt::format("{} runs from {} to {}, wanted 0 to {} (the length of {})", name, first, last, wanted, of));
  }
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
  if (mark.id.empty() || mark.number >= mark.shards) {
    fail(file.path(), fmt::format("says it is shard {} of {} of set \"{}\"", mark.number, mark.shards, mark.id));
  }
  return mark;
}

ShardInfo check_shard(const h5::File& file) {
  if (!file.has("/", "format")) fail(file.path(), "is not a shard: it has no attribute format");
  if (const auto format = file.get_string("/", "format"); format != kShardFormat) {
    fail(file.path(), fmt::format("is not a shard: attribute format is \"{}\", wanted \"{}\"", format, kShardFormat));
  }
  const auto version = file.get_int("/", "version");
  if (version != kShardVersion && version != kTargetsVersion) {
    fail(file.path(), fmt::format("is a shard of version {}, this program reads versions {} and {}", version,
                                  kShardVersion, kTargetsVersion));
  }
  ShardInfo info;
  info.path = file.path();
  const auto width = array(file, "/images/width", h5::Type::u32, "uint32");
  info.images = width.dims[0];
  info.width_offset = width.file_offset;
  const auto height = array(file, "/images/height", h5::Type::u32, "uint32");
  want_length(file, "/images/height", height, info.images, "as many as /images/width");
  info.height_offset = height.file_offset;
  const auto offset = array(file, "/images/offset", h5::Type::u64, "uint64");
  want_length(file, "/images/offset", offset, info.images + 1, "one more than /images/width");
  info.offset_offset = offset.file_offset;
  const auto checksum = array(file, "/images/checksum", h5::Type::u64, "uint64");
  want_length(file, "/images/checksum", checksum, info.images, "as many as /images/width");
  info.checksum_offset = checksum.file_offset;
  const auto bytes = array(file, "/images/bytes", h5::Type::u8, "uint8");
  info.pixels_offset = bytes.file_offset;
  info.pixels_bytes = bytes.dims[0];
  if (file.exists("/images/label")) {
    const auto label = array(file, "/images/label", h5::Type::i32, "int32");
    want_length(file, "/images/label", label, info.images, "as many as /images/width");
    info.label_offset = label.file_offset;
  }
  if (version == kTargetsVersion) {
    const auto begin = array(file, "/images/target_begin", h5::Type::u64, "uint64");
    want_length(file, "/images/target_begin", begin, info.images + 1, "one more than /images/width");
    info.target_begin_offset = begin.file_offset;
    const auto target = array(file, "/images/target", h5::Type::i32, "int32");
    if (info.label_offset != 0) fail(file.path(), "has both /images/label and /images/target, wanted one of them");
    info.targets = target.dims[0];
    info.target_offset = target.file_offset;
    want_range(file, "/images/target_begin", info.images, info.targets, "/images/target");
  }
  if (version == kShardVersion && file.exists("/images/target")) {
    fail(file.path(), fmt::format("has /images/target, which shards of version {} do not have", version));
  }
  if (file.exists("/images/name")) {
    const auto [names, length] = file.describe_strings("/images/name");
    if (names != info.images) {
      fail(file.path(),
           fmt::format("/images/name has {} entries, wanted {} (as many as /images/width)", names, info.images));
    }
  }
  if (file.has("/", "classes")) info.classes = file.get_strings("/", "classes");
  info.set = read_mark(file);
  want_range(file, "/images/offset", info.images, info.pixels_bytes, "/images/bytes");
  return info;
}

ShardInfo open_shard(const std::string& path, const comm::Communicator* comm) {
  ShardInfo info = check_shard(h5::File::open(path, comm));
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) info.file_bytes = static_cast<std::uint64_t>(status.st_size);
  return info;
}

}  // namespace

ShardInfo read_shard_info(const std::string& path, const comm::Communicator* comm) {
  auto tried = [&] { h5::trial(path, [](const h5::File& file) { return check_shard(file), std::string(); }); };
  if (comm == nullptr) {
    tried();
  } else {
    comm::agree(*comm, "opening a shard", [&] {
      if (comm->is_root()) tried();
    });
  }
  return open_shard(path, comm);
}

void read_shard_infos(const std::vector<std::string>& paths, const comm::Communicator& alone,
                      const std::function<void(ShardInfo)>& take) {
  h5::trial_each(
      paths, [](const h5::File& file) { return check_shard(file), std::string(); },
      [&](std::size_t i, const std::string&) { take(open_shard(paths[i], &alone)); });
}

}  // namespace seer::data
