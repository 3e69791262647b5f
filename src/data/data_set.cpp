// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <mutex>
#include <unordered_map>

#include "packed.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/log.hpp"
#include "seer/base/streams.hpp"
#include "seer/comm/progress.hpp"
#include "shard_set.hpp"

namespace seer::data {

static void fields(Packed& bytes, ShardInfo& s) {
  bytes(s.path, s.file_bytes, s.images, s.pixels_offset, s.pixels_bytes, s.offset_offset, s.width_offset,
        s.height_offset, s.checksum_offset, s.label_offset, s.targets, s.target_offset, s.target_begin_offset,
        s.ignored, s.ignored_offset, s.ignored_begin_offset, s.classes, s.set.id, s.set.shards, s.set.number,
        s.set.max_pixels);
}

namespace {

/// Shards without their classes, and each distinct list of classes once.
struct Opened {
  std::vector<ShardInfo> shards;
  std::vector<std::uint64_t> list_of;  ///< per shard: index into lists
  std::vector<std::vector<std::string>> lists;

  void add(ShardInfo shard) {
    const auto list = std::find(lists.begin(), lists.end(), shard.classes);
    list_of.push_back(static_cast<std::uint64_t>(list - lists.begin()));
    if (list == lists.end()) lists.push_back(std::move(shard.classes));
    shard.classes.clear();
    shards.push_back(std::move(shard));
  }
};

/// If any shard has class names, drops the labels of shards without: their meaning is unknown.
void leave_out_unnamed_labels(Opened& opened) {
  if (std::ranges::all_of(opened.lists, [](const auto& list) { return list.empty(); })) return;
  const ShardInfo* first = nullptr;
  std::size_t count = 0;
  for (std::size_t i = 0; i < opened.shards.size(); ++i) {
    auto& shard = opened.shards[i];
    if (!shard.has_labels() || !opened.lists[opened.list_of[i]].empty()) continue;
    shard.label_offset = shard.target_begin_offset = shard.target_offset = shard.ignored_begin_offset = 0;
    if (count++ == 0) first = &shard;
  }
  if (count == 0) return;
  log::warn(fmt::format("{}{}: the labels have no class names, but other shards have them: these labels are not used",
                        first->path, count > 1 ? fmt::format(" and {} more shards", count - 1) : ""));
}

Opened open_all(const std::string& pattern, const comm::Communicator& alone) {
  const auto chosen = find_shards(pattern);
  std::vector<std::string> paths;
  for (const auto& c : chosen) paths.push_back(c.path);
  Opened opened;
  read_shard_infos(paths, alone, [&](ShardInfo info) { opened.add(std::move(info)); });
  check_sets(opened.shards, chosen);
  leave_out_unnamed_labels(opened);
  return opened;
}

[[noreturn]] void damaged(const std::string& what) {
  fail(what, "the shard is damaged: pack it again");
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
  // At most a quarter of the files that the process may still open: other data sets, checkpoints, logs and MPI open
  // some.
  const std::size_t max_open_files = std::clamp<std::size_t>(spare_open_files() / 4, 1, 256);
  mutable std::mutex mutex;
  mutable std::vector<std::shared_ptr<std::FILE>> files;
  mutable std::size_t open_files = 0, clock_hand = 0;

  std::shared_ptr<std::FILE> file(std::uint32_t shard) const {
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
      const auto& path = shards[shard].path;
      auto* const opened = std::fopen(path.c_str(), "rbe");
      if (opened == nullptr) fail(fmt::format("{}: {}", path, std::strerror(errno)));
      files[shard].reset(opened, [](std::FILE* file) { std::fclose(file); });
      ++open_files;
    }
    return files[shard];
  }

  std::uint32_t shard_of(std::uint64_t index) const {
    return static_cast<std::uint32_t>(std::upper_bound(first.begin(), first.end(), index) - first.begin() - 1);
  }

  /// A stored label (least: -1) or target (least: 0) as an index into `classes`. Error(file) if it is none.
  std::int32_t renumbered(std::uint32_t shard, std::uint64_t image, std::int32_t label, std::int32_t least) const {
    const auto& places = maps[list_of[shard]];
    const auto highest = static_cast<std::int64_t>(places.size()) - 1;
    if (label < least || (!places.empty() && label > highest))
      damaged(fmt::format("{}: image {} has {} {}, wanted {}{}", shards[shard].path, image,
                          least < 0 ? "label" : "target", label, least,
                          places.empty() ? " or more" : fmt::format(" to {}", highest)));
    return label < 0 || places.empty() ? label : places[static_cast<std::size_t>(label)];
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

DataSet::DataSet(ShardInfo shard) {
  Opened opened;
  opened.add(std::move(shard));
  impl_ = std::make_shared<Impl>(std::move(opened));
}

DataSet DataSet::open(const std::string& pattern, const comm::Communicator& comm) {
  // Only rank 0 reads the metadata, through MPI-IO on a communicator of one rank, and shares it: a thousand ranks that
  // open a thousand shards would overload a parallel file system.
  const comm::Communicator alone = comm.split(comm.rank());
  Opened opened;
  comm::agree(comm, "opening the data set", [&] {
    if (!comm.is_root()) return;
    opened = open_all(pattern, alone);
    if (std::ranges::all_of(opened.shards, [](const auto& s) { return s.images == 0; }))
      fail(fmt::format("\"{}\": the shards hold no images", pattern));
  });
  share(comm, opened.shards, opened.list_of, opened.lists);
  DataSet set;
  set.impl_ = std::make_shared<Impl>(std::move(opened));
  return set;
}

DataSet DataSet::subset(std::vector<std::uint64_t> indices) const {
  for (std::size_t i = 0; i < indices.size(); ++i)
    ensure(indices[i] < images() && (i == 0 || indices[i - 1] < indices[i]), "a subset's indices must ascend");
  if (chosen_)
    for (auto& index : indices) index = (*chosen_)[index];
  DataSet out;
  out.impl_ = impl_;
  out.chosen_ = std::make_shared<const std::vector<std::uint64_t>>(std::move(indices));
  return out;
}

/// Calls f(whole set, first image, count, chosen images) for runs of a subset's images that lie close together.
template <class F>
void DataSet::each_run(std::uint64_t first, std::uint64_t count, F&& f) const {
  constexpr std::uint64_t kGap_images = 64;  // cheaper to read than to skip
  ensure(first <= images() && count <= images() - first, "images outside the data set");
  DataSet whole;
  whole.impl_ = impl_;
  const auto chosen = std::span(*chosen_).subspan(first, count);
  for (std::size_t begin = 0, end = 0; begin < count; begin = end) {
    for (end = begin + 1; end < count && chosen[end] - chosen[end - 1] <= kGap_images;) ++end;
    f(whole, chosen[begin], chosen[end - 1] - chosen[begin] + 1, chosen.subspan(begin, end - begin));
  }
}

std::uint64_t DataSet::images() const {
  return chosen_ ? chosen_->size() : impl_->first.back();
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
  std::int64_t most = 0;
  for (const auto& s : impl_->shards)
    most = std::max(most, s.set.max_pixels > 0 ? static_cast<std::int64_t>(s.set.max_pixels) : kUsualMaxPixels);
  return most;
}

void DataSet::read(std::uint32_t shard, std::uint64_t offset, std::uint64_t bytes, void* out) const {
  const auto& path = impl_->shards[shard].path;
  const comm::Reading reading(path);
  const auto file = impl_->file(shard);
  auto* to = static_cast<char*>(out);
  while (bytes > 0) {
    const auto n = ::pread(::fileno(file.get()), to, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(fmt::format("{}: reading at {}: {}", path, offset, std::strerror(errno)));
    if (n == 0)
      fail(fmt::format("{}: ends {} bytes early (at {})", path, bytes, offset),
           "it was cut off or replaced after it was opened");
    to += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::uint64_t>(n);
  }
}

std::vector<ImagePlace> DataSet::places(std::uint64_t first, std::uint64_t count) const {
  std::vector<ImagePlace> out;
  out.reserve(count);
  if (chosen_) {
    each_run(first, count, [&](const DataSet& whole, std::uint64_t begin, std::uint64_t run, const auto& chosen) {
      const auto found = whole.places(begin, run);
      for (const auto image : chosen) out.push_back(found[image - begin]);
    });
    return out;
  }
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    const auto offsets = read_values<std::uint64_t>(shard, info.offset_offset, begin, part + 1);
    const auto sums = read_values<std::uint64_t>(shard, info.checksum_offset, begin, part);
    for (std::uint64_t i = 0; i < part; ++i) {
      if (offsets[i] > offsets[i + 1] || offsets[i + 1] > info.pixels_bytes)
        damaged(fmt::format("{}: image {} lies at [{}, {}) of {} bytes", info.path, begin + i, offsets[i],
                            offsets[i + 1], info.pixels_bytes));
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
  if (found != place.checksum)
    fail(fmt::format("its bytes have the checksum {:016x}; it was {:016x} when packed", found, place.checksum),
         "the shard is damaged: check it with seer inspect --verify, and use another copy");
}

std::vector<std::int32_t> DataSet::labels(std::uint64_t first, std::uint64_t count) const {
  std::vector<std::int32_t> out;
  const auto all = targets(first, count);
  for (std::size_t i = 0; i < count; ++i) out.push_back(all.of(i).size() == 1 ? all.of(i).front() : -1);
  return out;
}

Targets DataSet::targets(std::uint64_t first, std::uint64_t count) const {
  return values(first, count, &ShardInfo::targets, &ShardInfo::target_offset, &ShardInfo::target_begin_offset);
}

Targets DataSet::ignored(std::uint64_t first, std::uint64_t count) const {
  return values(first, count, &ShardInfo::ignored, &ShardInfo::ignored_offset, &ShardInfo::ignored_begin_offset);
}

Targets DataSet::values(std::uint64_t first, std::uint64_t count, Number ShardInfo::*total, Number ShardInfo::*offset,
                        Number ShardInfo::*begin_offset) const {
  Targets out;
  if (chosen_) {
    each_run(first, count, [&](const DataSet& whole, std::uint64_t begin, std::uint64_t run, const auto& chosen) {
      const auto found = whole.values(begin, run, total, offset, begin_offset);
      for (const auto image : chosen) out.add(found.of(image - begin));
    });
    return out;
  }
  impl_->each_part(first, count, [&](std::uint32_t shard, std::uint64_t begin, std::uint64_t part) {
    const auto& info = impl_->shards[shard];
    if (info.*begin_offset == 0) {
      const bool labels = begin_offset == &ShardInfo::target_begin_offset && info.label_offset != 0;
      const auto found = labels ? read_values<std::int32_t>(shard, info.label_offset, begin, part)
                                : std::vector<std::int32_t>(part, -1);
      for (std::uint64_t i = 0; i < part; ++i) {
        const auto label = impl_->renumbered(shard, begin + i, found[i], -1);
        out.add(std::span(&label, label < 0 ? 0U : 1U));
      }
      return;
    }
    const auto begins = read_values<std::uint64_t>(shard, info.*begin_offset, begin, part + 1);
    for (std::uint64_t i = 0; i < part; ++i)
      if (begins[i] > begins[i + 1] || begins[i + 1] > info.*total)
        damaged(fmt::format("{}: image {} has targets {} to {} of {}", info.path, begin + i, begins[i], begins[i + 1],
                            info.*total));
    auto found = read_values<std::int32_t>(shard, info.*offset, begins.front(), begins.back() - begins.front());
    for (std::uint64_t i = 0; i < part; ++i) {
      const auto of = std::span(found).subspan(begins[i] - begins.front(), begins[i + 1] - begins[i]);
      for (auto& target : of) target = impl_->renumbered(shard, begin + i, target, 0);
      out.add(of);
    }
  });
  return out;
}

std::string DataSet::describe(std::uint64_t index) const {
  index = std::min(index, images() - 1);
  if (chosen_) index = (*chosen_)[index];
  const auto shard = impl_->shard_of(index);
  return fmt::format("{}, image {}", std::filesystem::path(impl_->shards[shard].path).filename().string(),
                     index - impl_->first[shard]);
}

}  // namespace seer::data
