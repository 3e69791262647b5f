// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <unordered_map>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/open_files.hpp"
#include "seer/comm/progress.hpp"
#include "seer/data/shard.hpp"
#include "shard_set.hpp"

namespace seer::data {
namespace {

// Maximum number of shards kept open. At most a quarter of the files that the process may still open, which leaves room
// for other data sets, checkpoints, logs and MPI.
constexpr std::size_t kMaxOpenFiles = 256;
std::size_t files_to_hold() {
  return std::clamp<std::size_t>(spare_open_files() / 4, 1, kMaxOpenFiles);
}

struct Descriptor {
  explicit Descriptor(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd < 0) throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  ~Descriptor() { ::close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int fd;
};

// Packs what rank 0 found into bytes for the other ranks.
class Packer {
 public:
  void number(std::uint64_t v) { bytes_.append(reinterpret_cast<const char*>(&v), sizeof v); }
  void text(const std::string& v) {
    number(v.size());
    bytes_ += v;
  }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

class Unpacker {
 public:
  explicit Unpacker(const std::string& bytes) : bytes_(bytes) {}
  std::uint64_t number() {
    std::uint64_t v = 0;
    ensure(at_ + sizeof v <= bytes_.size(), "shard list of another length");
    std::memcpy(&v, bytes_.data() + at_, sizeof v);
    at_ += sizeof v;
    return v;
  }
  std::string text() {
    const auto length = number();
    ensure(length <= bytes_.size() - at_, "shard list of another length");
    at_ += length;
    return bytes_.substr(at_ - length, length);
  }

 private:
  const std::string& bytes_;
  std::size_t at_ = 0;
};

template <class F>
void each_number(ShardInfo& s, F&& f) {
  for (auto* n : {&s.file_bytes, &s.images, &s.pixels_offset, &s.pixels_bytes, &s.offset_offset, &s.width_offset,
                  &s.height_offset, &s.checksum_offset, &s.label_offset, &s.targets, &s.target_offset,
                  &s.target_begin_offset, &s.set.shards, &s.set.number, &s.set.max_pixels}) {
    f(*n);
  }
}

/// Shards without their classes, and each distinct list of classes once.
struct Opened {
  std::vector<ShardInfo> shards;
  std::vector<std::uint64_t> list_of;  ///< per shard: index into lists
  std::vector<std::vector<std::string>> lists;
};

std::string to_bytes(Opened& opened) {
  Packer out;
  out.number(opened.shards.size());
  for (std::size_t i = 0; i < opened.shards.size(); ++i) {
    auto& s = opened.shards[i];
    out.text(s.path);
    out.text(s.set.id);
    each_number(s, [&](std::uint64_t& n) { out.number(n); });
    out.number(opened.list_of[i]);
  }
  out.number(opened.lists.size());
  for (const auto& list : opened.lists) {
    out.number(list.size());
    for (const auto& c : list) out.text(c);
  }
  return std::move(out.bytes());
}

Opened from_bytes(const std::string& bytes) {
  Unpacker in(bytes);
  Opened opened;
  opened.shards.resize(in.number());
  for (auto& s : opened.shards) {
    s.path = in.text();
    s.set.id = in.text();
    each_number(s, [&](std::uint64_t& n) { n = in.number(); });
    opened.list_of.push_back(in.number());
  }
  opened.lists.resize(in.number());
  for (auto& list : opened.lists) {
    list.resize(in.number());
    for (auto& c : list) c = in.text();
  }
  return opened;
}

void take(ShardInfo shard, std::map<std::vector<std::string>, std::uint64_t>& known, Opened& out) {
  const auto [list, is_new] = known.emplace(std::move(shard.classes), out.lists.size());
  if (is_new) out.lists.push_back(list->first);
  shard.classes.clear();
  out.list_of.push_back(list->second);
  out.shards.push_back(std::move(shard));
}

/// If any shard has class names, drops the labels of shards without: their meaning is unknown.
void leave_out_unnamed_labels(Opened& opened) {
  if (std::all_of(opened.lists.begin(), opened.lists.end(), [](const auto& list) { return list.empty(); })) return;
  const ShardInfo* first = nullptr;
  std::size_t count = 0;
  for (std::size_t i = 0; i < opened.shards.size(); ++i) {
    auto& shard = opened.shards[i];
    if (!shard.has_labels() || !opened.lists[opened.list_of[i]].empty()) continue;
    shard.label_offset = shard.target_begin_offset = shard.target_offset = 0;
    if (count++ == 0) first = &shard;
  }
  if (count == 0) return;
  log::warn(fmt::format("{}{}: the labels have no names of classes, unlike those of other shards: they are not used",
                        first->path, count > 1 ? fmt::format(" and {} more shards", count - 1) : ""));
}

Opened open_all(const std::string& pattern, const comm::Communicator& alone) {
  const auto chosen = find_shards(pattern);
  std::vector<std::string> paths;
  for (const auto& c : chosen) paths.push_back(c.path);
  Opened opened;
  std::map<std::vector<std::string>, std::uint64_t> known;
  read_shard_infos(paths, alone, [&](ShardInfo info) { take(std::move(info), known, opened); });
  check_sets(opened.shards, chosen);
  leave_out_unnamed_labels(opened);
  return opened;
}

}  // namespace

struct DataSet::Impl {
  explicit Impl(Opened opened)
      : shards(std::move(opened.shards)), list_of(std::move(opened.list_of)), files(shards.size()) {
    first.push_back(0);
    for (const auto& s : shards) first.push_back(first.back() + s.images);
    std::unordered_map<std::string, std::int32_t> places;
    for (const auto& list : opened.lists) {
      auto& map = maps.emplace_back();
      for (const auto& name : list) {
        const auto [at, is_new] = places.emplace(name, static_cast<std::int32_t>(classes.size()));
        if (is_new) classes.push_back(name);
        map.push_back(at->second);
      }
    }
  }

  std::vector<ShardInfo> shards;
  std::vector<std::string> classes;
  std::vector<std::vector<std::int32_t>> maps;  // per list of classes: label -> index into `classes`
  std::vector<std::uint64_t> list_of;           // per shard: index into maps
  std::vector<std::uint64_t> first;             // index of each shard's first image, and the total
  const std::size_t max_open_files = files_to_hold();
  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<Descriptor>> files;
  mutable std::size_t open_files = 0, clock_hand = 0;

  std::shared_ptr<Descriptor> file(std::uint32_t shard) const {
    const std::lock_guard lock(mutex);
    if (!files[shard]) {
      // Clock replacement: the hand goes round and drops the next open file. Readers that still use it keep it open.
      while (open_files >= max_open_files) {
        clock_hand = (clock_hand + 1) % files.size();
        if (files[clock_hand]) {
          files[clock_hand].reset();
          --open_files;
        }
      }
      files[shard] = std::make_shared<Descriptor>(shards[shard].path);
      ++open_files;
    }
    return files[shard];
  }

  std::uint32_t shard_of(std::uint64_t index) const {
    return static_cast<std::uint32_t>(std::upper_bound(first.begin(), first.end(), index) - first.begin() - 1);
  }

  // Calls f(shard, first image within it, count) for each shard that [begin, begin + count) touches.
  template <class F>
  void each_part(std::uint64_t begin, std::uint64_t count, F&& f) const {
    ensure(begin <= first.back() && count <= first.back() - begin, "images outside the data set");
    while (count > 0) {
      const auto shard = shard_of(begin);
      const auto part = std::min(count, first[shard + 1] - begin);
      f(shard, begin - first[shard], part);
      begin += part;
      count -= part;
    }
  }
};

DataSet::DataSet(Impl* impl) : impl_(impl) {}
DataSet::DataSet(DataSet&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
DataSet& DataSet::operator=(DataSet&& other) noexcept {
  std::swap(impl_, other.impl_);
  return *this;
}
DataSet::~DataSet() {
  delete impl_;
}

DataSet::DataSet(ShardInfo shard) {
  Opened opened;
  std::map<std::vector<std::string>, std::uint64_t> known;
  take(std::move(shard), known, opened);
  impl_ = new Impl(std::move(opened));
}

DataSet DataSet::open(const std::string& pattern, const comm::Communicator& comm) {
  // Only rank 0 reads the metadata, through MPI-IO on a communicator of one rank, and shares it: a thousand ranks that
  // open a thousand shards would overload a parallel file system.
  const comm::Communicator alone = comm.split(comm.rank());
  std::string bytes;
  comm::agree(comm, "opening the data set", [&] {
    if (!comm.is_root()) return;
    auto opened = open_all(pattern, alone);
    std::uint64_t images = 0;
    for (const auto& s : opened.shards) images += s.images;
    if (images == 0) throw Error(ExitCode::file, fmt::format("\"{}\": the shards hold no images", pattern));
    bytes = to_bytes(opened);
  });
  comm.broadcast(bytes);
  return DataSet(new Impl(from_bytes(bytes)));
}

std::uint64_t DataSet::images() const {
  return impl_->first.back();
}
const std::vector<ShardInfo>& DataSet::shards() const {
  return impl_->shards;
}
const std::vector<std::string>& DataSet::classes() const {
  return impl_->classes;
}
bool DataSet::has_labels() const {
  return std::ranges::any_of(impl_->shards, [](const auto& s) { return s.has_labels(); });
}

std::int64_t DataSet::max_pixels() const {
  std::uint64_t most = 0;
  for (const auto& s : impl_->shards)
    most = std::max(most, s.set.max_pixels > 0 ? s.set.max_pixels : std::uint64_t{kUsualMaxPixels});
  return static_cast<std::int64_t>(most);
}

void DataSet::read(std::uint32_t shard, std::uint64_t offset, std::uint64_t bytes, void* out) const {
  const comm::Reading reading(impl_->shards[shard].path);
  const auto file = impl_->file(shard);
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const auto n = ::pread(file->fd, to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    const auto& path = impl_->shards[shard].path;
    if (n < 0) throw Error(ExitCode::file, fmt::format("{}: reading at {}: {}", path, offset, std::strerror(errno)));
    if (n == 0) {
      throw Error(ExitCode::file, fmt::format("{}: ends {} bytes early (at {})", path, bytes, offset),
                  "it was cut off or replaced after it was opened");
    }
    to += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
}

std::vector<ImagePlace> DataSet::places(std::uint64_t first, std::uint64_t count) const {
  std::vector<ImagePlace> out;
  out.reserve(count);
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    std::vector<std::uint64_t> offsets(part + 1);
    read(shard, info.offset_offset + begin * 8, offsets.size() * 8, offsets.data());
    std::vector<std::uint64_t> sums(part);
    read(shard, info.checksum_offset + begin * 8, part * 8, sums.data());
    for (std::uint64_t i = 0; i < part; ++i) {
      if (offsets[i] > offsets[i + 1] || offsets[i + 1] > info.pixels_bytes) {
        throw Error(ExitCode::file,
                    fmt::format("{}: image {} lies at [{}, {}) of {} bytes", info.path, begin + i, offsets[i],
                                offsets[i + 1], info.pixels_bytes),
                    "the shard is damaged: pack it again");
      }
      out.push_back({shard, info.pixels_offset + offsets[i], offsets[i + 1] - offsets[i], sums[i]});
    }
  });
  return out;
}

ImagePlace DataSet::read_image(std::uint64_t index, std::vector<std::uint8_t>& out) const {
  const auto place = places(index, 1).front();
  out.resize(place.bytes);
  read(place.shard, place.offset, place.bytes, out.data());
  return place;
}

void require_intact(const ImagePlace& place, std::span<const std::uint8_t> bytes) {
  const auto found = checksum(bytes.data(), bytes.size());
  if (found == place.checksum) return;
  throw Error(ExitCode::file,
              fmt::format("its bytes have the checksum {:016x}, {:016x} when packed", found, place.checksum),
              "the shard is damaged: see how far with seer inspect --verify, and take another copy");
}

std::int32_t DataSet::renumbered(std::uint32_t shard, std::uint64_t image, std::int32_t label, bool optional) const {
  const auto& places = impl_->maps[impl_->list_of[shard]];
  const auto highest = static_cast<std::int64_t>(places.size()) - 1;
  if (label < (optional ? -1 : 0) || (!places.empty() && label > highest)) {
    throw Error(ExitCode::file,
                fmt::format("{}: image {} has {} {}, wanted {}{}", impl_->shards[shard].path, image,
                            optional ? "label" : "target", label, optional ? "-1" : "0",
                            places.empty() ? " or more" : fmt::format(" to {}", highest)),
                "the shard is damaged: pack it again");
  }
  return label < 0 || places.empty() ? label : places[static_cast<std::size_t>(label)];
}

std::vector<std::int32_t> DataSet::labels(std::uint64_t first, std::uint64_t count) const {
  std::vector<std::int32_t> out;
  out.reserve(count);
  const auto all = targets(first, count);
  for (std::size_t i = 0; i < count; ++i) out.push_back(all.of(i).size() == 1 ? all.of(i).front() : -1);
  return out;
}

Targets DataSet::targets(std::uint64_t first, std::uint64_t count) const {
  Targets out;
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    std::vector<std::int32_t> values;
    if (info.target_begin_offset == 0) {
      values.assign(part, -1);
      if (info.label_offset != 0) read(shard, info.label_offset + begin * 4, part * 4, values.data());
      for (std::uint64_t i = 0; i < part; ++i) {
        const auto label = renumbered(shard, begin + i, values[i], true);
        out.add(std::span(&label, label < 0 ? 0U : 1U));
      }
      return;
    }
    std::vector<std::uint64_t> begins(part + 1);
    read(shard, info.target_begin_offset + begin * 8, begins.size() * 8, begins.data());
    for (std::uint64_t i = 0; i < part; ++i) {
      if (begins[i] > begins[i + 1] || begins[i + 1] > info.targets) {
        throw Error(ExitCode::file,
                    fmt::format("{}: image {} has targets {} to {} of {}", info.path, begin + i, begins[i],
                                begins[i + 1], info.targets),
                    "the shard is damaged: pack it again");
      }
    }
    values.resize(begins.back() - begins.front());
    read(shard, info.target_offset + begins.front() * 4, values.size() * 4, values.data());
    for (std::uint64_t i = 0; i < part; ++i) {
      const auto of = std::span(values).subspan(begins[i] - begins.front(), begins[i + 1] - begins[i]);
      for (auto& target : of) target = renumbered(shard, begin + i, target, false);
      out.add(of);
    }
  });
  return out;
}

std::string DataSet::describe(std::uint64_t index) const {
  const auto shard = impl_->shard_of(std::min(index, images() - 1));
  return fmt::format("{}, image {}", std::filesystem::path(impl_->shards[shard].path).filename().string(),
                     index - impl_->first[shard]);
}

}  // namespace seer::data
