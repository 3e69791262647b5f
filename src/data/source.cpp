// SPDX-License-Identifier: Apache-2.0
// Choice of the batch source, and what the sources share.
#include "seer/data/source.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <optional>

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
  for (const auto& kind : crop_kinds(crops)) {
    if (groups.empty() || groups.back().size != kind.size) {
      groups.emplace_back();
      groups.back().size = kind.size;
      groups.back().first_crop = crop;
    }
    ++groups.back().count;
    ++crop;
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

std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm,
                                         std::int64_t start_update) {
  return open_source(config, comm, Start::of(start_update, config.data.global_batch));
}

std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start,
                                         device::DeviceQueue* compute) {
  std::unique_ptr<BatchSource> source;
  comm::agree(comm, "data", [&] { check(config, comm.size()); });
  if (config.data.source == "crops") {
    comm::agree(comm, "crops file", [&] { source = open_crops(config, comm.rank(), comm.size(), start); });
    return source;
  }
  std::optional<DataSet> data(DataSet::open(config.data.shards, comm));
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
