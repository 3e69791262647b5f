// SPDX-License-Identifier: Apache-2.0
// The sources of crops for the training step: shards with augmentation, or a crops file (validation). For shards,
// worker threads sample, decode and augment images and make batches ahead of the step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/shard.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
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
  /// The classes of this rank's images, as indices into the data set's: each has none, one (a label) or several. None
  /// if labels are not read.
  Targets targets;
  /// Classes of which nobody knows whether the images have them, in the same form; of no images if there are none.
  Targets ignored;
};

/// Distinguishes a shard from others of the same name.
struct ShardIdentity {
  std::string name;  ///< without the folder, since data sets are moved
  std::int64_t bytes = 0, images = 0;
  bool operator==(const ShardIdentity&) const = default;
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

/// Whether a source reads labels and targets. If nobody uses them, damaged ones do no harm.
enum class Labels : bool { ignore, read };

/// Where a source begins: the next update, and the number of images of the sequence that earlier updates have used.
struct Start {
  std::int64_t update = 0;
  std::int64_t images_seen = 0;

  /// Position of the first image of update t if all batches from here on have size `batch`. If the batch size has
  /// changed before, this is not t * batch.
  std::int64_t position(std::int64_t t, std::int64_t batch) const { return images_seen + (t - update) * batch; }
};

/// Collective. Rank r of R takes the r-th equal slice of the images at [p, p + B), where p is the update's position
/// (method.md 6). Errors agreed over ranks: Error(file) for missing or malformed shards, Error(input) if the number of
/// ranks does not divide the batch. `compute`: the device queue of the training, which must outlive the source; batches
/// from shards are then made on the device, on a second queue. Batches from a crops file are always on the host.
/// `opened`: the shards, if the caller has already opened them. Reads only the images that data.fraction or
/// data.per_class choose (seer/data/subset.hpp).
std::unique_ptr<BatchSource> open_source(const config::Config& config, const comm::Communicator& comm, Start start = {},
                                         device::DeviceQueue* compute = nullptr,
                                         std::optional<DataSet> opened = std::nullopt, Labels labels = Labels::ignore);

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

/// The source of data.source = "shards".
class ShardLoader : public BatchSource {
 public:
  /// Number of images that went to the device as crops: they did not fit into the staging memory, or RandAugment
  /// changed them.
  virtual std::int64_t images_as_crops() const = 0;
  virtual LoaderTimes times() const = 0;
  virtual std::size_t threads() const = 0;
};

/// Not collective. Reads the slice of `rank` out of `ranks`; config.data.global_batch must be a multiple of `ranks`.
/// With `parts` the batches lie on the device.
std::unique_ptr<ShardLoader> open_shards(const config::Config& config, DataSet data, int rank, int ranks,
                                         std::size_t threads, Start start, Labels labels,
                                         std::shared_ptr<DeviceParts> parts = nullptr);

/// Collective. Number of reader threads for this rank: data.reader_threads if set. If it is 0: this rank's share of
/// the cores that it may run on (a core is divided among the node's ranks that may use it), minus its compute threads,
/// but at least 1.
std::size_t reader_threads(const config::Config& config, const comm::Communicator& comm);

// The order of images: a keyed permutation of [0, images) for every epoch, in constant memory (method.md 6).

/// Puts blocks of `block_images` neighbouring images into a random order. Then shuffles the images within each window
/// of `window_blocks` consecutive blocks of that order. So reading one window touches window_blocks places of the data
/// set. The last block of the data set and the last window may be shorter. The order depends only on (seed, sizes,
/// position), not on ranks, threads or earlier calls. Thread-safe.
class Sampler {
 public:
  Sampler(std::uint64_t images, std::uint64_t seed, std::uint64_t block_images, std::uint64_t window_blocks);

  /// Image at a position of the infinite sequence of epochs: epoch = position / images.
  std::uint64_t image(std::uint64_t position) const { return image(position / images_, position % images_); }
  /// Image at `place` in [0, images) of an epoch.
  std::uint64_t image(std::uint64_t epoch, std::uint64_t place) const;

  std::uint64_t images() const { return images_; }
  std::uint64_t block_images() const { return block_images_; }

 private:
  std::uint64_t images_, seed_, block_images_, window_blocks_, blocks_;
  std::uint64_t missing_;  // images that the last block lacks
};

/// A pseudo-random permutation of [0, n), n > 0: a balanced Feistel network over the next power of four, applied again
/// until the value lies in [0, n) (at most four times on average). The two functions are each other's inverse.
std::uint64_t permute(std::uint64_t value, std::uint64_t n, std::uint64_t key);
std::uint64_t permute_back(std::uint64_t value, std::uint64_t n, std::uint64_t key);

/// Groups consecutive crops of equal size. Each group's tensor has the shape for `images` images, but no memory.
std::vector<CropGroup> crop_groups(const std::vector<config::Crops>& crops, std::int64_t images);
/// Allocates one buffer for the tensors of all groups. Each begins at a multiple of `align` bytes.
device::Buffer allocate(std::vector<CropGroup>& groups, std::int64_t align, device::Space space);
/// Rounds up to a multiple.
constexpr std::int64_t rounded(std::int64_t bytes, std::int64_t align) {
  return (bytes + align - 1) / align * align;
}

}  // namespace seer::data
