// SPDX-License-Identifier: Apache-2.0
// Chooses the batch source; functions that all sources share.
#include "seer/data/source.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "fetch.hpp"
#include "seer/base/error.hpp"
#include "seer/data/augment.hpp"
#include "seer/data/loader.hpp"
#include "seer/device/session.hpp"

namespace seer::data {
namespace {

void check(const config::Config& config, int ranks) {
  const auto& data = config.data;
  if (data.global_batch < 1 || data.global_batch % ranks != 0) {
    const std::int64_t lower = data.global_batch / ranks * ranks;
    throw Error(ExitCode::input,
                fmt::format("data.global_batch = {} does not divide among {} ranks", data.global_batch, ranks),
                lower > 0 ? fmt::format("use a multiple of {}, for example {} or {}", ranks, lower, lower + ranks)
                          : fmt::format("use a multiple of {}, for example {}", ranks, ranks));
  }
  if (data.source != "shards" && data.source != "crops")
    throw Error(ExitCode::input, fmt::format("data.source = \"{}\", wanted \"shards\" or \"crops\"", data.source));
  if (data.source == "shards" && data.mode != "fixed")
    throw Error(ExitCode::input, fmt::format("data.mode = \"{}\" is not part of this version", data.mode),
                "use data.mode = \"fixed\"");
}

}  // namespace

std::vector<CropGroup> crop_groups(const std::vector<config::Crops>& crops, std::int64_t images) {
  std::vector<CropGroup> groups;
  int crop = 0;
  for (const auto& entry : crops) {
    if (groups.empty() || groups.back().size != entry.size) {
      groups.emplace_back();
      groups.back().size = entry.size;
      groups.back().first_crop = crop;
    }
    groups.back().count += static_cast<int>(entry.count);
    crop += static_cast<int>(entry.count);
  }
  for (auto& group : groups) group.images.shape = {group.count * images, group.size, group.size, 3};
  return groups;
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
    std::vector<std::uint32_t> widths, heights;
    std::uint64_t block = 0;  // counts blocks over all shards; the ranks take them in turn
    for (std::uint32_t s = 0; s < data.shards().size(); ++s) {
      const auto& shard = data.shards()[s];
      for (std::uint64_t begin = 0; begin < shard.images; begin += kBlockImages) {
        if (block++ % size != rank) continue;
        const auto count = std::min(kBlockImages, shard.images - begin);
        widths.resize(count);
        heights.resize(count);
        data.read(s, shard.width_offset + 4 * begin, 4 * count, widths.data());
        data.read(s, shard.height_offset + 4 * begin, 4 * count, heights.data());
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
  // turned upright; or the shared read of several files that contains the image (fetch.cpp; one byte per pixel).
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

std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm,
                                         std::int64_t start_update) {
  return open_source(config, comm, Start::of(start_update, config.data.global_batch));
}

std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start,
                                         device::DeviceQueue* compute, std::optional<DataSet> opened) {
  std::unique_ptr<BatchSource> source;
  comm::agree(comm, "data", [&] {
    check(config, comm.size());
    if (config.data.reader_threads > device::most_threads()) {
      throw Error(ExitCode::input,
                  fmt::format("data.reader_threads: found {}, allowed 0 to {} on this node", config.data.reader_threads,
                              device::most_threads()),
                  "0 chooses by the cores that a rank has");
    }
  });
  if (config.data.source == "crops") {
    comm::agree(comm, "crops file", [&] { source = open_crops(config, comm.rank(), comm.size(), start); });
    return source;
  }
  auto data = std::move(opened);
  if (!data) data.emplace(DataSet::open(config.data.shards, comm));
  const std::size_t threads = reader_threads(config, comm);
  comm::agree(comm, "loader", [&] {
    if (data->images() == 0)
      throw Error(ExitCode::file, fmt::format("data.shards = \"{}\" holds no images", config.data.shards),
                  "pack images into it with `seer pack`");
    std::shared_ptr<DeviceParts> parts;
    if (compute != nullptr) parts = device_parts(config, config.data.global_batch / comm.size(), threads, *compute);
    source = std::make_unique<ShardLoader>(config, std::move(*data), comm.rank(), comm.size(), threads, start,
                                           std::move(parts));
  });
  return source;
}

}  // namespace seer::data
