// SPDX-License-Identifier: Apache-2.0
// One batch on its way to a device. Pinned memory holds the table of crops to make, followed by the decoded images, so
// that one copy transfers everything. Its size is fixed. If an image no longer fits, the host makes its crops and sends
// those instead. A crop of the final size passes through the device's resampling unchanged, so the pixels do not depend
// on which images did not fit.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/augment.hpp"
#include "seer/data/image.hpp"
#include "seer/device/pinned.hpp"
#include "seer/kernels/image_batch.hpp"

namespace seer::data {

/// Crops of one size, as rows of the table.
struct StagedGroup {
  std::int64_t size = 0, first_job = 0, crops = 0;  ///< crops: over all images
  std::int64_t first_row = 0;                       ///< index of its first row count; there are crops + 1
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
  std::vector<StagedGroup> groups;
  std::int64_t jobs_bytes = 0, table_bytes = 0;  ///< the jobs; jobs and row counts
  Room reserved;                                 ///< for one image sent as crops: always available
  Room most;                                     ///< for all images
  std::int64_t bytes() const { return table_bytes + most.pixels; }
  /// Scratch memory that is enough for any group.
  std::int64_t scratch_bytes = 0;
};

class Staging {
 public:
  /// `plan` must outlive the Staging.
  explicit Staging(const StagingPlan& plan);

  /// Discards the previous batch. Must not run at the same time as any other call.
  void start();
  /// Adds a decoded image with the plans of its crops. Many threads may call it at a time, each with its own image.
  void add(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch);
  /// Reserves room on the device for an image that will be decoded there. Returns its place in bytes from the start of
  /// the copied block, or nullopt if no room is left. The image may still be passed to add() later.
  std::optional<std::int64_t> claim(std::int64_t image, std::int64_t width, std::int64_t height,
                                    std::span<const CropPlan> plans);
  /// To be called after all images: completes the table. Returns the layout of the scratch memory of each group.
  std::span<const kernels::CropRoom> finish();

  const void* data() const { return memory_.data(); }
  /// Bytes to copy: the table and the added images.
  std::size_t bytes() const;
  std::int64_t pinned_bytes() const { return static_cast<std::int64_t>(memory_.bytes()); }
  /// Number of images of this batch that were sent as crops.
  std::int64_t images_as_crops() const { return as_crops_; }

 private:
  kernels::CropJob* job(std::int64_t image, std::size_t crop);
  void describe(std::int64_t image, std::span<const CropPlan> plans, std::int64_t place, std::int64_t row_bytes);
  void add_crops(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch);

  const StagingPlan& plan_;
  device::PinnedBuffer memory_;
  std::vector<kernels::CropRoom> rooms_;
  std::mutex mutex_;                                 // guards the members below
  std::int64_t front_ = 0, back_ = 0, scratch_ = 0;  // bytes taken: by added images, by claimed images, by both
  std::int64_t waiting_ = 0;                         // images not yet added; the room reserved for them stays free
  std::int64_t as_crops_ = 0;
};

}  // namespace seer::data
