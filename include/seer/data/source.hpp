// SPDX-License-Identifier: Apache-2.0
// Where the step loop gets its crops from: shards with augmentation, or a crops file (validation).
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
  std::int64_t size = 0;  ///< pixels a side
  int first_crop = 0, count = 0;
  /// [count * images_per_rank, size, size, 3] float, normalised; row = crop * images + image. On the host, or where
  /// the source was opened for a device queue and makes its crops, on the device.
  device::Tensor images;
};

struct Batch {
  std::int64_t update = 0;
  std::int64_t images = 0;  ///< of this rank
  std::vector<CropGroup> groups;
  std::vector<std::uint64_t> positions;  ///< index in the data set of each of this rank's images
  std::int64_t replaced = 0;             ///< bad images replaced in this batch
  /// The classes of this rank's images, as places in the data set's: none, one (a label) or several each.
  Targets targets;
};

/// What tells a shard from another of the same name.
struct ShardIdentity {
  std::string name;  ///< without folder: data sets move
  std::int64_t bytes = 0, images = 0;
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// This rank's part of the next update's global batch; updates follow each other from the start update on. Valid
  /// until the next call: what a device queue was handed before that may still read it. Blocks until it is ready, on a
  /// device until it is being made: the queue waits for the rest. Throws Error(file) (bad_image_policy = "fail",
  /// vanished shard).
  virtual const Batch& next() = 0;
  /// Images of the data set (crops file: of all updates).
  virtual std::uint64_t images() const = 0;
  /// The shards in order, stored in checkpoints.
  virtual std::vector<ShardIdentity> shards() const = 0;
  /// Bad images met so far by this rank.
  virtual std::int64_t bad_images() const = 0;
  virtual std::int64_t bytes_held() const = 0;
  /// Bytes of device memory held for the run.
  virtual std::int64_t device_bytes_held() const { return 0; }
};

/// Where a source begins: the next update, and the images that the updates before it have taken of the sequence.
struct Start {
  std::int64_t update = 0;
  std::int64_t images_seen = 0;

  /// Of a run whose global batch was always `batch`.
  static Start of(std::int64_t update, std::int64_t batch) { return {update, update * batch}; }
  /// Position of the first image of update t in batches of `batch` from here on. After a change of the batch it is not
  /// t * batch.
  std::int64_t position(std::int64_t t, std::int64_t batch) const { return images_seen + (t - update) * batch; }
};

/// Collective. Rank r of R takes the r-th equal slice of the images at [p, p + B), where p is the update's position
/// (method.md 6). Errors agreed over ranks: Error(file) for missing or malformed shards, Error(input) for a batch
/// that the ranks do not divide. `compute`: the device queue that the batches are computed on, which must outlive the
/// source; shards then give batches on the device, made beside it. A crops file's batches are on the host anyway.
/// `opened`: the shards, where the caller has opened them already.
std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start,
                                         device::DeviceQueue* compute = nullptr,
                                         std::optional<DataSet> opened = std::nullopt);
/// The same for a run whose global batch was always config.data.global_batch.
std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm,
                                         std::int64_t start_update);

/// What the memory of a host's loader depends on beside the configuration.
struct Readers {
  std::int64_t threads = 1;       ///< of a rank, where data.reader_threads leaves them open
  std::int64_t image_pixels = 0;  ///< of the largest image; 0: data.staging_pixels
  std::int64_t images = 0;        ///< of the data set; 0: not known
};
/// data.max_pixels, or what the data set's images were packed with.
std::int64_t max_pixels(const config::Config& config, const DataSet& data);
/// Pixels of the largest image that will be decoded; collective, each rank reads its share of the sizes. Error(file).
std::int64_t largest_image_pixels(const config::Config& config, const DataSet& data, const comm::Communicator& comm);
/// What a loader of batches on the host holds at most for `images_here` images of a rank.
std::int64_t loader_bytes(const config::Config& config, std::int64_t images_here, const Readers& readers);

}  // namespace seer::data
