// SPDX-License-Identifier: Apache-2.0
// The training loader. Worker threads sample, decode and augment images from shards and make batches ahead of the step.
#pragma once

#include <cstdint>
#include <memory>

#include "seer/data/shard.hpp"
#include "seer/data/source.hpp"

namespace seer::data {

/// The work of this rank's threads so far, summed over threads.
struct LoaderTimes {
  std::int64_t images = 0;
  std::int64_t bytes_read = 0;  ///< bytes of encoded images
  double read_ms = 0, decode_ms = 0, augment_ms = 0;
  std::int64_t pixels = 0;  ///< pixels of the images that the workers decoded
};

/// The parts that make batches on a device (src/data/device_feed.hpp).
struct DeviceParts;
/// Makes the parts for batches that the training computes on the queue `compute`. Error(device).
std::shared_ptr<DeviceParts> device_parts(const config::Config& config, std::int64_t images_here, std::size_t threads,
                                          device::DeviceQueue& compute);

/// Bytes that a loader holds for one rank's batches on a device: pinned host memory (staging) and device memory.
struct FeedBytes {
  std::int64_t pinned = 0, device = 0;
};
FeedBytes feed_bytes(const config::Config& config, std::int64_t images_here);

class ShardLoader final : public BatchSource {
 public:
  /// Not collective. Reads the slice of `rank` out of `ranks`; config.data.global_batch must be a multiple of `ranks`.
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
  /// Number of images that did not fit into the staging memory and went to the device as crops.
  std::int64_t images_as_crops() const;

  LoaderTimes times() const;
  std::size_t threads() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Collective. Number of reader threads for this rank: data.reader_threads if set. If it is 0: this rank's share of
/// the cores that it may run on (a core is divided among the node's ranks that may use it), minus its compute threads,
/// but at least 1.
std::size_t reader_threads(const config::Config& config, const comm::Communicator& comm);

/// Opens the crops file of data.source = "crops" (docs/formats.md). Not collective.
std::unique_ptr<BatchSource> open_crops(const config::Config& config, int rank, int ranks, Start start);

/// Groups consecutive crops of equal size. Each group's tensor has the shape for `images` images, but no memory.
std::vector<CropGroup> crop_groups(const std::vector<config::Crops>& crops, std::int64_t images);

}  // namespace seer::data
