// SPDX-License-Identifier: Apache-2.0
// Stages images for a device, and turns them into batches there. Two batches lie there: while the training computes on
// one, the next is made on a second queue. The queues wait for each other on the device. The training's thread makes
// all calls of a DeviceFeed, except staging(), place() and calls on a Staging before make(), which come from the
// loader's threads.
#pragma once

#include <deque>
#include <mutex>
#include <span>

#include "seer/data/augment.hpp"
#include "seer/data/source.hpp"

namespace seer::data {

/// Decodes JPEG files on the device, if the build has a library for that (data.decode = "auto"). The host decodes the
/// files that the device does not support or fails on.
class DeviceDecoder {
 public:
  struct Size {
    std::int64_t width = 0, height = 0;
  };
  struct Job {
    std::span<const std::uint8_t> bytes;
    void* to = nullptr;  ///< on the device: 3 * width * height bytes, R, G, B interleaved
    Size size;
    bool done = false;  ///< set to true if decoding succeeded
  };
  virtual ~DeviceDecoder() = default;
  /// Returns the size of an image that the device can decode; nullopt: the host must decode it. Many threads may call
  /// it at a time, each with its own `worker` number.
  virtual std::optional<Size> takes(std::span<const std::uint8_t> bytes, std::int64_t max_pixels,
                                    std::size_t worker) = 0;
  /// Decodes all jobs together and waits for them. One thread at a time. Error(device) only if the device itself fails.
  virtual void decode(std::span<Job> jobs) = 0;
};

/// Makes a decoder for `workers` workers and at most `most_images` images at a time. Returns nullptr and sets `why_not`
/// if there is none.
std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t workers, std::int64_t most_images, std::string& why_not);

/// The two queues as the feed sees them: the side queue makes batches, the training computes on the main queue. Each
/// runs its work in order. Only the calls here order work of one queue relative to the other.
class Lanes {
 public:
  virtual ~Lanes() = default;
  virtual device::Space space() const = 0;
  virtual void copy(const void* pinned, void* there, std::size_t bytes) = 0;
  virtual void make(const kernels::CropBatch& batch) = 0;
  /// Work submitted to the side (main) queue from now on waits for work submitted to the other queue before.
  virtual void side_follows_main() = 0;
  virtual void main_follows_side() = 0;
  /// Waits until the side queue has finished all its work.
  virtual void wait_for_side() = 0;
};

/// What a loader needs to make its batches on a device.
struct DeviceParts {
  std::unique_ptr<Lanes> lanes;
  std::unique_ptr<DeviceDecoder> decoder;  ///< nullptr: all images are decoded on the host
};

/// Sizes and places derived from the configuration, the same for all batches of a run.
struct StagingPlan {
  StagingPlan(const config::Config& config, std::int64_t images_here);

  /// Bytes that images take: pixels, and scratch memory of kernels::make_crops.
  struct Room {
    std::int64_t pixels = 0, scratch = 0;
  };
  Room room_of(std::int64_t width, std::int64_t height, std::span<const CropPlan> plans) const;

  std::int64_t images = 0;
  std::vector<CropKind> kinds;  ///< the crops of one image
  /// Crops of one size, as rows of the table.
  struct Group {
    std::int64_t size = 0, first_job = 0, crops = 0;  ///< crops: over all images
    std::int64_t first_row = 0;                       ///< index of its first row count; there are crops + 1
  };
  std::vector<Group> groups;
  std::int64_t jobs_bytes = 0, table_bytes = 0;  ///< the jobs; jobs and row counts
  Room reserved;                                 ///< for one image sent as crops: always available
  Room most;                                     ///< for all images
  std::int64_t bytes() const { return table_bytes + most.pixels; }
  /// Scratch memory that is enough for any group.
  std::int64_t scratch_bytes = 0;
};

/// One batch on its way to a device. Pinned memory holds the table of crops to make, followed by the decoded images, so
/// that one copy transfers everything. Its size is fixed. If an image no longer fits, or RandAugment changes one of its
/// crops, the host makes its crops and sends those instead. A crop of the final size passes through the device's
/// resampling unchanged, so the pixels do not depend on which images did not fit.
class Staging {
 public:
  /// `plan` must outlive the Staging.
  explicit Staging(const StagingPlan& plan);

  /// Discards the previous batch. Must not run at the same time as any other call.
  void start() {
    front_ = back_ = scratch_ = as_crops_ = 0;
    waiting_ = plan_.images;
  }
  /// Adds a decoded image with the plans of its crops. Many threads may call it at a time, each with its own image.
  void add(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch);
  /// Reserves room on the device for an image that will be decoded there. Returns its place in bytes from the start of
  /// the copied block, or nullopt if no room is left or the host must make the crops. The image may still be passed to
  /// add() later.
  std::optional<std::int64_t> claim(std::int64_t image, std::int64_t width, std::int64_t height,
                                    std::span<const CropPlan> plans);
  /// To be called after all images: completes the table. Returns the layout of the scratch memory of each group.
  std::span<const kernels::CropRoom> finish();

  const void* data() const { return memory_.data(); }
  /// Bytes to copy: the table and the added images.
  std::size_t bytes() const { return static_cast<std::size_t>(plan_.table_bytes + front_); }
  /// Number of images of this batch that were sent as crops.
  std::int64_t images_as_crops() const { return as_crops_; }

 private:
  /// Fills in a crop's row of the table.
  kernels::CropJob& describe(std::int64_t image, std::size_t crop, const CropPlan& plan, std::int64_t place,
                             std::int64_t row_bytes);
  void add_crops(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, std::int64_t place,
                 AugmentScratch& scratch);
  /// Whether there is room, with the room kept free that `others` other images need if they must go as crops.
  bool fits(const StagingPlan::Room& room, std::int64_t others) const;

  const StagingPlan& plan_;
  device::PinnedBuffer memory_;
  std::vector<kernels::CropRoom> rooms_;
  std::mutex mutex_;                                 // guards the members below
  std::int64_t front_ = 0, back_ = 0, scratch_ = 0;  // bytes taken: by added images, by claimed images, by both
  std::int64_t waiting_ = 0;                         // images not yet added; the room reserved for them stays free
  std::int64_t as_crops_ = 0;
};

class DeviceFeed {
 public:
  /// `stagings`: number of batches staged at a time. `apart`: each has its own place on the device, since the device
  /// decoder writes images there while other batches are made.
  enum class Places : bool { shared, apart };
  DeviceFeed(const config::Config& config, std::int64_t images, std::size_t stagings, Places places,
             std::unique_ptr<Lanes> lanes);

  Staging& staging(std::size_t slot) { return stagings_[slot]; }
  const StagingPlan& plan() const { return plan_; }
  /// Where the block of a staging lies on the device.
  char* place(std::size_t slot) const { return static_cast<char*>(places_[slot % places_.size()].data()); }

  /// Waits until the last batch submitted by make() is complete. Its staging has then been read and may be refilled.
  void settle() {
    if (unsettled_) lanes_->wait_for_side();
    unsettled_ = false;
  }
  /// Promises that work submitted to the main queue from now on does not use the batch lent last.
  void hand_back();
  /// Submits the work that makes a batch from staging `slot`, at most one ahead of the one lent. Does not wait.
  void make(std::size_t slot, const Batch& about);
  /// Whether a batch has been made ahead.
  bool ahead() const { return ahead_; }
  /// Returns the batch made ahead. The main queue waits for it, the caller does not. Valid until handed back.
  const Batch& lend();

  /// Memory held for the run, in bytes.
  std::int64_t pinned_bytes() const { return static_cast<std::int64_t>(stagings_.size()) * plan_.bytes(); }
  std::int64_t device_bytes() const;

 private:
  StagingPlan plan_;
  config::Augment augment_;
  std::deque<Staging> stagings_;
  std::vector<device::Buffer> places_;
  device::Buffer scratch_;
  struct Out {
    device::Buffer memory;
    Batch batch;
  };
  Out out_[2];
  int next_ = 0;  // index into out_
  bool ahead_ = false, lent_ = false, unsettled_ = false;
  std::unique_ptr<Lanes> lanes_;  // last: their work uses all members above
};

}  // namespace seer::data
