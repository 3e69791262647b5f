// SPDX-License-Identifier: Apache-2.0
// The sources of crops for the training step: shards with augmentation, or a crops file (validation).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/data/shard.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::data {

/// Consecutive crops of equal size, run through the trunk together (method.md 4.3).
struct CropGroup {
  std::int64_t size = 0;  ///< pixels per side
  int first_crop = 0, count = 0;
  /// [count * images_per_rank, size, size, 3] float, normalised; row = crop * images + image. On the host, or on the
  /// device if the source reads shards and was opened for a device queue.
  device::Tensor images;
};

struct Batch {
  std::int64_t update = 0;
  std::int64_t images = 0;  ///< number of this rank's images
  std::vector<CropGroup> groups;
  std::vector<std::uint64_t> positions;  ///< index in the data set of each of this rank's images
  std::int64_t replaced = 0;             ///< bad images replaced in this batch
  /// The classes of this rank's images, as indices into the data set's: each has none, one (a label) or several.
  Targets targets;
};

/// Distinguishes a shard from others of the same name.
struct ShardIdentity {
  std::string name;  ///< without the folder, since data sets are moved
  std::int64_t bytes = 0, images = 0;
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Returns this rank's part of the next update's global batch; updates ascend from the start update. Valid until the
  /// next call; work submitted to the device queue before that call may still read it. Host: blocks until the batch is
  /// ready. Device: blocks until the work that makes it is submitted; the queue waits for that work. Throws Error(file)
  /// (bad_image_policy = "fail", vanished shard).
  virtual const Batch& next() = 0;
  /// Number of images in the data set (crops file: in all updates).
  virtual std::uint64_t images() const = 0;
  /// The shards in order. Checkpoints store them.
  virtual std::vector<ShardIdentity> shards() const = 0;
  /// Number of bad images that this rank has met so far.
  virtual std::int64_t bad_images() const = 0;
  virtual std::int64_t bytes_held() const = 0;
  /// Bytes of device memory held for the run.
  virtual std::int64_t device_bytes_held() const { return 0; }
};

/// Where a source begins: the next update, and the number of images of the sequence that earlier updates have used.
struct Start {
  std::int64_t update = 0;
  std::int64_t images_seen = 0;

  /// The start of a run whose global batch was always `batch`.
  static Start of(std::int64_t update, std::int64_t batch) { return {update, update * batch}; }
  /// Position of the first image of update t if all batches from here on have size `batch`. If the batch size has
  /// changed before, this is not t * batch.
  std::int64_t position(std::int64_t t, std::int64_t batch) const { return images_seen + (t - update) * batch; }
};

/// Collective. Rank r of R takes the r-th equal slice of the images at [p, p + B), where p is the update's position
/// (method.md 6). Errors agreed over ranks: Error(file) for missing or malformed shards, Error(input) if the number of
/// ranks does not divide the batch. `compute`: the device queue of the training, which must outlive the source; batches
/// from shards are then made on the device, on a second queue. Batches from a crops file are always on the host.
/// `opened`: the shards, if the caller has already opened them.
std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start,
                                         device::DeviceQueue* compute = nullptr,
                                         std::optional<DataSet> opened = std::nullopt);
/// The same for a run whose global batch was always config.data.global_batch.
std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm,
                                         std::int64_t start_update);

/// What the memory of a host loader depends on in addition to the configuration.
struct Readers {
  std::int64_t threads = 1;       ///< threads per rank, used if data.reader_threads is 0
  std::int64_t image_pixels = 0;  ///< pixels of the largest image; 0: data.staging_pixels
  std::int64_t images = 0;        ///< images in the data set; 0: unknown
};
/// data.max_pixels if set, else the limit that the data set was packed with.
std::int64_t max_pixels(const config::Config& config, const DataSet& data);
/// Pixels of the largest image that will be decoded. Collective: each rank reads its share of the sizes. Error(file).
std::int64_t largest_image_pixels(const config::Config& config, const DataSet& data, const comm::Communicator& comm);
/// Upper bound in bytes for the memory of a host loader whose rank has `images_here` images per batch.
std::int64_t loader_bytes(const config::Config& config, std::int64_t images_here, const Readers& readers);

}  // namespace seer::data
