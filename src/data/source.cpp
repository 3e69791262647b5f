// SPDX-License-Identifier: Apache-2.0
// The source that reads a crops file; the choice of the source; functions that all sources share.
#include "seer/data/source.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <cstring>
#include <filesystem>
#include <numeric>

#include "pipeline.hpp"
#include "seer/base/error.hpp"
#include "seer/data/augment.hpp"
#include "seer/data/subset.hpp"
#include "seer/device/session.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {
namespace {

/// data.source = "crops" (docs/formats.md): given crops in their order, without augmentation, to compare whole updates
/// with a reference. The training thread reads them: a validation tool, not a fast path.
class CropsSource final : public BatchSource {
 public:
  CropsSource(const config::Config& config, int rank, int ranks, Start start)
      : path_(config.data.shards),
        file_(h5::File::open(path_)),
        batch_rows_(config.data.global_batch),
        rank_(rank),
        start_(start),
        update_(start.update) {
    check(crop_kinds(config));
    batch_.images = batch_rows_ / ranks;
    batch_.groups = crop_groups(config.crops, batch_.images);
    memory_ = allocate(batch_.groups, 64, device::Space::host);
    batch_.positions.resize(static_cast<std::size_t>(batch_.images));
    labels_.resize(file_.exists("/labels") ? static_cast<std::size_t>(batch_.images) : 0);
    batch_.targets.begins.resize(static_cast<std::size_t>(batch_.images) + 1);  // none
    if (labels_.empty()) return;
    std::iota(batch_.targets.begins.begin(), batch_.targets.begins.end(), std::uint64_t{0});
    const auto dims = file_.describe("/labels").dims;
    if (dims.size() != 1 || dims[0] != rows_)
      throw Error(ExitCode::file,
                  fmt::format("{}: /labels has shape [{}], wanted [{}]", path_, fmt::join(dims, ", "), rows_));
  }

  const Batch& next() override {
    const std::int64_t position = start_.position(update_, batch_rows_);
    if (position + batch_rows_ > static_cast<std::int64_t>(rows_))
      throw Error(ExitCode::input,
                  fmt::format("{} holds crops for {} updates, update {} was requested", path_,
                              static_cast<std::int64_t>(rows_) / batch_rows_, update_),
                  "set schedule.total_updates to the number of updates in the file");
    const std::int64_t first = position + rank_ * batch_.images;
    std::iota(batch_.positions.begin(), batch_.positions.end(), static_cast<std::uint64_t>(first));
    for (auto& group : batch_.groups) {
      const std::int64_t pixels = group.size * group.size;
      planar_.resize(static_cast<std::size_t>(batch_.images * 3 * pixels));
      for (int c = 0; c < group.count; ++c) {
        file_.read(fmt::format("/crops/{}", group.first_crop + c), h5::Type::f32,
                   static_cast<std::uint64_t>(first * 3 * pixels), planar_.size(), planar_.data());
        float* const out = group.images.slice(c * batch_.images, batch_.images).f32();
        for (std::int64_t i = 0; i < batch_.images; ++i)
          for (std::int64_t channel = 0; channel < 3; ++channel)
            for (std::int64_t p = 0; p < pixels; ++p)
              out[(i * pixels + p) * 3 + channel] = planar_[static_cast<std::size_t>((i * 3 + channel) * pixels + p)];
      }
    }
    if (!labels_.empty()) {
      file_.read("/labels", h5::Type::i32, static_cast<std::uint64_t>(first), labels_.size(), labels_.data());
      batch_.targets.values = labels_;
    }
    batch_.update = update_++;
    return batch_;
  }

  std::uint64_t images() const override { return rows_; }
  std::vector<ShardIdentity> shards() const override {
    return {{std::filesystem::path(path_).filename().string(),
             static_cast<std::int64_t>(std::filesystem::file_size(path_)), static_cast<std::int64_t>(rows_)}};
  }
  std::int64_t bad_images() const override { return 0; }
  std::int64_t bytes_held() const override {
    return static_cast<std::int64_t>(planar_.capacity() * sizeof(float) + memory_.bytes());
  }

 private:
  void check(const std::vector<CropKind>& kinds) {
    for (std::size_t crop = 0; crop < kinds.size(); ++crop) {
      const std::string name = fmt::format("/crops/{}", crop);
      if (!file_.exists(name))
        throw Error(ExitCode::file,
                    fmt::format("{} has no {}; the configuration asks for {} crops", path_, name, kinds.size()),
                    "change [[crops]] to match the file");
      const auto found = file_.describe(name);
      const auto size = static_cast<std::uint64_t>(kinds[crop].size);
      const auto& dims = found.dims;
      if (!found.type || (*found.type != h5::Type::f32 && *found.type != h5::Type::f64))
        throw Error(ExitCode::file, fmt::format("{}: {} is not of float type", path_, name));
      if (dims.size() != 4 || dims[1] != 3)
        throw Error(ExitCode::file, fmt::format("{}: {} has shape [{}], wanted [updates * batch, 3, height, width]",
                                                path_, name, fmt::join(dims, ", ")));
      if (dims[2] != size || dims[3] != size)
        throw Error(ExitCode::input,
                    fmt::format("{}: {} has crops of {} x {}, the configuration asks for {} x {}", path_, name, dims[2],
                                dims[3], size, size),
                    "change the sizes in [[crops]] to match the file");
      if (crop == 0) rows_ = dims[0];
      if (dims[0] != rows_)
        throw Error(ExitCode::file, fmt::format("{}: {} has {} rows, /crops/0 has {}", path_, name, dims[0], rows_));
    }
    if (file_.exists(fmt::format("/crops/{}", kinds.size())))
      throw Error(ExitCode::input,
                  fmt::format("{} holds more crops than the {} of the configuration", path_, kinds.size()),
                  "change [[crops]] to match the file");
    if (rows_ == 0 || rows_ % static_cast<std::uint64_t>(batch_rows_) != 0)
      throw Error(ExitCode::input,
                  fmt::format("{} holds {} rows, not a multiple of data.global_batch = {}", path_, rows_, batch_rows_),
                  "set data.global_batch to the batch that the file was written for");
  }

  std::string path_;
  h5::File file_;
  std::int64_t batch_rows_, rank_;
  Start start_;
  std::int64_t update_;
  std::uint64_t rows_ = 0;
  Batch batch_;
  device::Buffer memory_;
  std::vector<float> planar_;
  std::vector<std::int32_t> labels_;
};

}  // namespace

std::vector<CropGroup> crop_groups(const std::vector<config::Crops>& crops, std::int64_t images) {
  std::vector<CropGroup> groups;
  int crop = 0;
  for (const auto& entry : crops) {
    if (groups.empty() || groups.back().size != entry.size) groups.push_back({entry.size, crop, 0, {}});
    groups.back().count += static_cast<int>(entry.count);
    crop += static_cast<int>(entry.count);
  }
  for (auto& group : groups) group.images.shape = {group.count * images, group.size, group.size, 3};
  return groups;
}

device::Buffer allocate(std::vector<CropGroup>& groups, std::int64_t align, device::Space space) {
  std::int64_t bytes = 0;
  for (const auto& group : groups) bytes += rounded(group.images.bytes(), align);
  device::Buffer memory(static_cast<std::size_t>(bytes), space);
  char* at = static_cast<char*>(memory.data());
  for (auto& group : groups) {
    group.images.data = at;
    group.images.space = space;
    at += rounded(group.images.bytes(), align);
  }
  return memory;
}

std::size_t reader_threads(const config::Config& config, const comm::Communicator& comm) {
  cpu_set_t mine;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof mine, &mine);
  const auto node = comm.node();
  const auto masks = node.all_gather(std::string(reinterpret_cast<const char*>(&mine), sizeof mine));
  if (config.data.reader_threads > 0) return static_cast<std::size_t>(config.data.reader_threads);
  double share = 0;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &mine)) continue;
    int users = 0;
    for (const auto& mask : masks) {
      cpu_set_t theirs;
      std::memcpy(&theirs, mask.data(), std::min(sizeof theirs, mask.size()));
      users += CPU_ISSET(core, &theirs) ? 1 : 0;
    }
    share += 1.0 / std::max(users, 1);
  }
  const int spare = static_cast<int>(share + 1e-6) - device::threads();
  return static_cast<std::size_t>(std::clamp(spare, 1, 64));
}

std::int64_t max_pixels(const config::Config& config, const DataSet& data) {
  return config.data.max_pixels > 0 ? config.data.max_pixels : data.max_pixels();
}

std::int64_t largest_image_pixels(const config::Config& config, const DataSet& data, const comm::Communicator& comm) {
  constexpr std::uint64_t kBlockImages = 1 << 16;
  const auto size = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  const auto limit = static_cast<std::uint64_t>(max_pixels(config, data));
  std::int64_t largest = 0;
  comm::agree(comm, "sizes of images", [&] {
    std::uint64_t block = 0;  // counts blocks over all shards; the ranks take them in turn
    for (std::uint32_t s = 0; s < data.shards().size(); ++s) {
      const auto& shard = data.shards()[s];
      for (std::uint64_t begin = 0; begin < shard.images; begin += kBlockImages) {
        if (block++ % size != rank) continue;
        const auto count = std::min(kBlockImages, shard.images - begin);
        const auto widths = data.read_values<std::uint32_t>(s, shard.width_offset, begin, count);
        const auto heights = data.read_values<std::uint32_t>(s, shard.height_offset, begin, count);
        for (std::uint64_t i = 0; i < count; ++i) {
          const auto pixels = std::uint64_t{widths[i]} * heights[i];
          // Larger images count as bad and are not decoded.
          if (pixels <= limit) largest = std::max(largest, static_cast<std::int64_t>(pixels));
        }
      }
    }
  });
  return comm.all_reduce(largest, comm::Op::max);
}

std::int64_t loader_bytes(const config::Config& config, std::int64_t images_here, const Readers& readers) {
  constexpr std::int64_t kDecodedPerPixel = 3;
  // In addition to the decoded image, the larger of two: the same size again, for a progressive JPEG or one to be
  // turned upright; or the shared read of several files that contains the image (pipeline.cpp; one byte per pixel).
  constexpr std::int64_t kReadBytes = std::int64_t{4} << 20, kFilePerPixel = 1;
  // Per output pixel: its planes, their sums, and the sums of a blur. Per thread: tables and strips.
  constexpr std::int64_t kScratchPerPixel = 16, kTablesBytes = std::int64_t{64} << 10;
  constexpr double kUsualImages = 1e6;  // assumed size of the data set if it is unknown, for the place cache
  const auto& data = config.data;
  std::int64_t bytes = 0, widest = 0;
  for (const auto& group : crop_groups(config.crops, images_here)) {
    bytes += group.images.bytes();
    widest = std::max(widest, group.size);
  }
  bytes *= std::max<std::int64_t>(data.prefetch_batches, 1) + 1;
  const auto threads = data.reader_threads > 0 ? data.reader_threads : readers.threads;
  const auto usual = data.max_pixels > 0 ? std::min(data.staging_pixels, data.max_pixels) : data.staging_pixels;
  const auto pixels = readers.image_pixels > 0 ? readers.image_pixels : usual;
  const auto places = std::min(2.0 * static_cast<double>(data.window_blocks) * static_cast<double>(data.block_images),
                               readers.images > 0 ? static_cast<double>(readers.images) : kUsualImages);
  const auto read = std::min(kReadBytes, kFilePerPixel * pixels * images_here);
  const auto thread = kDecodedPerPixel * pixels + std::max(kDecodedPerPixel * pixels, read) +
                      kScratchPerPixel * widest * widest + kTablesBytes;
  return bytes + threads * thread + static_cast<std::int64_t>(places * PlaceCache::kImageBytes);
}

std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start,
                                         device::DeviceQueue* compute, std::optional<DataSet> opened, Labels labels) {
  std::unique_ptr<BatchSource> source;
  comm::agree(comm, "data", [&] {
    const std::int64_t batch = config.data.global_batch, ranks = comm.size(), lower = batch / ranks * ranks;
    if (batch < 1 || batch % ranks != 0)
      throw Error(ExitCode::input, fmt::format("data.global_batch = {} cannot be divided among {} ranks", batch, ranks),
                  lower > 0 ? fmt::format("use a multiple of {}, for example {} or {}", ranks, lower, lower + ranks)
                            : fmt::format("use a multiple of {}, for example {}", ranks, ranks));
    if (config.data.reader_threads > device::most_threads())
      throw Error(ExitCode::input,
                  fmt::format("data.reader_threads: found {}, allowed 0 to {} on this node", config.data.reader_threads,
                              device::most_threads()),
                  "use 0: seer then chooses the number from the cores that a rank has");
  });
  if (config.data.source == "crops") {
    comm::agree(comm, "crops file",
                [&] { source = std::make_unique<CropsSource>(config, comm.rank(), comm.size(), start); });
    return source;
  }
  auto data = std::move(opened);
  if (!data) data.emplace(DataSet::open(config.data.shards, comm));
  data.emplace(subset_of(*data, subset_choice(config.data), comm));
  const std::size_t threads = reader_threads(config, comm);
  comm::agree(comm, "loader", [&] {
    std::shared_ptr<DeviceParts> parts;
    if (compute != nullptr) parts = device_parts(config, config.data.global_batch / comm.size(), threads, *compute);
    source = open_shards(config, std::move(*data), comm.rank(), comm.size(), threads, start, labels, std::move(parts));
  });
  return source;
}

}  // namespace seer::data
