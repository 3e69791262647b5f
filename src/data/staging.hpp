// SPDX-License-Identifier: Apache-2.0
// One batch on its way to a device: decoded images one after another in pinned memory, behind the table of what is made
// of them, so that all of it goes over in one copy. Sized once. An image that no longer fits goes over as its crops,
// resized on the host: a crop of its final size passes through the device's resampling unchanged, so pixels do not
// depend on how images came to lie.
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
  std::int64_t size = 0, first_job = 0, crops = 0;  ///< crops: of all images
  std::int64_t first_row = 0;                       ///< place of its row counts: crops + 1 of them
};

/// Sizes and places that follow from the configuration: the same for all batches of a run.
struct StagingPlan {
  StagingPlan(const config::Config& config, std::int64_t images_here);

  /// What images take: bytes of pixels, and of the scratch of kernels::make_crops.
  struct Room {
    std::int64_t pixels = 0, scratch = 0;
  };
  Room room_of(std::int64_t width, std::int64_t height, std::span<const CropPlan> plans) const;

  std::int64_t images = 0;
  std::vector<CropKind> kinds;  ///< of an image's crops
  std::vector<StagedGroup> groups;
  std::int64_t jobs_bytes = 0, table_bytes = 0;  ///< the jobs; jobs and row counts
  Room reserved;                                 ///< of an image as its crops: always there
  Room most;                                     ///< of all images
  std::int64_t bytes() const { return table_bytes + most.pixels; }
  /// Of the scratch of any group.
  std::int64_t scratch_bytes = 0;
};

class Staging {
 public:
  /// `plan` must outlive it.
  explicit Staging(const StagingPlan& plan);

  /// Forgets the batch before. One thread, nothing else under way.
  void start();
  /// A decoded image and the plans of its crops. Many threads at a time, each with its own image.
  void add(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch);
  /// Room for an image that somebody else decodes on the device: its place there, counted in bytes from the copied
  /// block's begin; nullopt where none is left. It may still be add()ed instead.
  std::optional<std::int64_t> claim(std::int64_t image, std::int64_t width, std::int64_t height,
                                    std::span<const CropPlan> plans);
  /// When all images are there: completes the table; of each group, what its scratch holds.
  std::span<const kernels::CropRoom> finish();

  const void* data() const { return memory_.data(); }
  /// To copy: the table and the images added.
  std::size_t bytes() const;
  std::int64_t pinned_bytes() const { return static_cast<std::int64_t>(memory_.bytes()); }
  /// Images of this batch that went over as crops.
  std::int64_t images_as_crops() const { return as_crops_; }

 private:
  kernels::CropJob* job(std::int64_t image, std::size_t crop);
  void describe(std::int64_t image, std::span<const CropPlan> plans, std::int64_t place, std::int64_t row_bytes);
  void add_crops(std::int64_t image, const Image& decoded, std::span<const CropPlan> plans, AugmentScratch& scratch);

  const StagingPlan& plan_;
  device::PinnedBuffer memory_;
  std::vector<kernels::CropRoom> rooms_;
  std::mutex mutex_;                                 // guards what follows
  std::int64_t front_ = 0, back_ = 0, scratch_ = 0;  // taken: by images added, by images claimed, by both
  std::int64_t waiting_ = 0;                         // images whose reserve nobody may take
  std::int64_t as_crops_ = 0;
};

}  // namespace seer::data
