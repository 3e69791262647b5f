// SPDX-License-Identifier: Apache-2.0
// What a plan can learn about the images: from the shards themselves, and from running the loader on them for a moment.
#include <fmt/format.h>

#include <algorithm>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/data/source.hpp"
#include "seer/data/subset.hpp"
#include "seer/device/session.hpp"
#include "seer/plan/calibrate.hpp"

namespace seer::plan {
namespace {

/// Mean over the first images of at most kShards shards, evenly spaced.
double mean_pixels(const data::DataSet& data) {
  constexpr std::size_t kShards = 256;
  constexpr std::uint64_t kImages = 8192;
  double pixels = 0, images = 0;
  std::vector<std::uint32_t> widths, heights;
  for (std::size_t s = 0; s < data.shards().size(); s += 1 + data.shards().size() / kShards) {
    const auto& shard = data.shards()[s];
    const auto count = std::min(kImages, shard.images);
    widths.resize(count);
    heights.resize(count);
    data.read(static_cast<std::uint32_t>(s), shard.width_offset, 4 * count, widths.data());
    data.read(static_cast<std::uint32_t>(s), shard.height_offset, 4 * count, heights.data());
    for (std::size_t i = 0; i < count; ++i) pixels += static_cast<double>(widths[i]) * heights[i];
    images += static_cast<double>(count);
  }
  return pixels / std::max(images, 1.0);
}

}  // namespace

void measure_data(const comm::Communicator& world, const config::Config& config_in, config::Machine& machine) {
  constexpr double kEnough_s = 1.5;
  auto config = config_in;
  config.data.source = "shards";
  config.data.global_batch = 16L * world.size();
  config.data.reader_threads = 1;
  const auto source = data::open_source(config, world);
  auto* loader = dynamic_cast<data::ShardLoader*>(source.get());
  double pixels = 0;
  for (const auto& crops : config.crops) pixels += static_cast<double>(crops.count * crops.size * crops.size);
  const Clock clock;
  for (int i = 0; i < 6 && clock.seconds() < kEnough_s; ++i) loader->next();
  const auto times = loader->times();
  const auto images = static_cast<double>(times.images);
  machine.mean_image_bytes = static_cast<double>(times.bytes_read) / images;
  machine.mean_image_pixels = static_cast<double>(times.pixels) / images;
  machine.decode_pixels_per_s = static_cast<double>(times.pixels) / (1e-3 * times.decode_ms);
  machine.crop_pixels_per_s = pixels * images / (1e-3 * times.augment_ms);
  machine.data_measured = 1;
}

std::uint64_t look_at_data(const comm::Communicator& world, const config::Config& config, config::Machine& machine,
                           std::vector<std::string>& notes) {
  if (config.data.source == "crops") return 0;
  const auto here = device::processor();
  const bool this_machine = machine.backend == "host" && !here.empty() && machine.processor == here;
  const auto alone = world.split(world.rank());
  std::uint64_t images = 0;
  try {
    comm::agree(world, "looking at the shards", [&] {
      if (!world.is_root()) return;
      const auto data = data::DataSet::open(config.data.shards, alone);
      if (this_machine && machine.data_measured == 0 && !device::kernels_need_device())
        measure_data(alone, config, machine);
      double bytes = 0;
      for (const auto& shard : data.shards()) bytes += static_cast<double>(shard.pixels_bytes);
      images = data::subset_of(data, data::subset_choice(config.data), alone).images();
      machine.mean_image_pixels = mean_pixels(data);
      machine.mean_image_bytes = bytes / static_cast<double>(data.images());
    });
    notes.push_back(fmt::format("data: {} images of \"{}\", on average {:.0f} pixels and {:.1f} kB", images,
                                config.data.shards, machine.mean_image_pixels, 1e-3 * machine.mean_image_bytes));
  } catch (const Error& error) {
    if (error.code() != ExitCode::file) throw;
    notes.push_back(
        fmt::format("data: the shards cannot be read ({}): the machine file's mean image is used, {:.0f} pixels "
                    "and {:.1f} kB",
                    error.what(), machine.mean_image_pixels, 1e-3 * machine.mean_image_bytes));
  }
  if (machine.data_measured == 0) {
    notes.push_back(
        "speeds of decoding and cutting are the machine file's estimates; seer plan --calibrate FILE --shards "
        "SET measures them");
  }
  if (machine.backend == "host" && !this_machine && !machine.processor.empty()) {
    notes.push_back(fmt::format("the machine file describes \"{}\", this machine is \"{}\": it may take other times",
                                machine.processor, here.empty() ? "unknown" : here));
  }
  return images;
}

}  // namespace seer::plan
