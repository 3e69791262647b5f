// SPDX-License-Identifier: Apache-2.0
// The training loader: shards -> sampled, decoded, augmented batches, made ahead of the step by worker threads.
#pragma once

#include <cstdint>
#include <memory>

#include "seer/data/shard.hpp"
#include "seer/data/source.hpp"

namespace seer::data {

/// What the workers of this rank did so far, summed over threads.
struct LoaderTimes {
  std::int64_t images = 0;
  std::int64_t bytes_read = 0;  ///< of encoded images
  double read_ms = 0, decode_ms = 0, augment_ms = 0;
  std::int64_t pixels = 0;  ///< of images decoded by the workers
};

/// What makes batches on a device (src/data/device_feed.hpp).
struct DeviceParts;
/// For batches that are computed on this queue. Error(device).
std::shared_ptr<DeviceParts> device_parts(const config::Config& config, std::int64_t images_here, std::size_t threads,
                                          device::DeviceQueue& compute);

/// Memory that a loader holds for a rank's batches on a device: staging in pinned memory, and what is on the device.
struct FeedBytes {
  std::int64_t pinned = 0, device = 0;
};
FeedBytes feed_bytes(const config::Config& config, std::int64_t images_here);

class ShardLoader final : public BatchSource {
 public:
  /// Not collective. `rank` of `ranks` takes its slice; config.data.global_batch is a multiple of `ranks`.
  /// With `parts` the batches lie on the device.
  ShardLoader(const config::Config& config, DataSet data, int rank, int ranks, std::size_t threads, Start start,
              std::shared_ptr<DeviceParts> parts = nullptr);
  ~ShardLoader() override;

  const Batch& next() override;
  std::uint64_t images() const override;
  std::vector<ShardIdentity> shards() const override;
  std::int64_t bad_images() const override;
  std::int64_t bytes_held() const override;
  std::int64_t device_bytes_held() const override;
  /// Images that were too large for the staging and went to the device as crops.
  std::int64_t images_as_crops() const;

  LoaderTimes times() const;
  std::size_t threads() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Collective. Reader threads for this rank: data.reader_threads, or, where that is 0, this rank's share of the cores
/// that it may run on (each core divided among the node's ranks that may use it) less those that compute; at least 1.
std::size_t reader_threads(const config::Config& config, const comm::Communicator& comm);

/// The crops file of data.source = "crops" (docs/formats.md). Not collective.
std::unique_ptr<BatchSource> open_crops(const config::Config& config, int rank, int ranks, Start start);

/// Groups of consecutive crops of equal size, with room for `images` images each; tensors without memory.
std::vector<CropGroup> crop_groups(const std::vector<config::Crops>& crops, std::int64_t images);

}  // namespace seer::data
