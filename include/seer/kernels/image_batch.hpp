// SPDX-License-Identifier: Apache-2.0
// The crops of a whole batch, made of decoded 8-bit images by a dozen kernels: on a device one kernel for each crop and
// operation would be thousands an update. What is done to which crop is a table, drawn on the host. The same operations
// as kernels/image.hpp, to the bit, on the host and on a device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/kernels/image.hpp"

namespace seer::kernels {

enum class Colour : std::uint8_t { brightness, contrast, saturation, hue };

/// One crop: resized, mirrored, `changes` colour changes in their order, then grey, then blurred.
struct CropJob {
  std::int64_t pixels = 0;     ///< bytes from CropBatch::pixels to the image's first pixel (R, G, B interleaved)
  std::int64_t row_bytes = 0;  ///< of the image
  Box box;                     ///< inside the image
  Flip flip = Flip::no;
  bool grey = false, blur = false;
  std::int32_t changes = 0;  ///< of order[]
  Colour order[4] = {};
  float brightness = 1, contrast = 1, saturation = 1;  ///< factors
  std::int32_t hue = 0;                                ///< hue_shift() of a factor
  BlurBox blur_box;
  std::int64_t weights = 0;  ///< where its resampling weights lie in the scratch: set by lay_out()
};
/// adjust_hue's factor as a table holds it.
std::int32_t hue_shift(double factor);

/// What a crop takes of the scratch that depends on its box.
struct CropRoom {
  std::int64_t rows = 0;     ///< of the box, resized across only
  std::int64_t weights = 0;  ///< of the resampling
  CropRoom& operator+=(const CropRoom& other) {
    rows += other.rows;
    weights += other.weights;
    return *this;
  }
};
CropRoom room_of(const Box& box, std::int64_t size);

/// Crops of one size.
struct CropBatch {
  std::int64_t crops = 0, size = 0;     ///< size: pixels a side
  const CropJob* jobs = nullptr;        ///< [crops], where the queue's kernels reach it, as all that follows
  const std::int64_t* first = nullptr;  ///< [crops + 1]: rows of the boxes before each crop's
  CropRoom room;                        ///< of all crops, from lay_out()
  const std::uint8_t* pixels = nullptr;
  void* scratch = nullptr;  ///< crop_scratch_bytes(); contents matter to one call only
  float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
  float* out = nullptr;  ///< [crops, size, size, 3]
};

/// Fills in jobs[].weights and first[crops + 1]; returns what all crops take together.
CropRoom lay_out(CropJob* jobs, std::int64_t crops, std::int64_t size, std::int64_t* first);
std::size_t crop_scratch_bytes(std::int64_t crops, std::int64_t size, const CropRoom& room);

/// Does not wait on a device queue.
void make_crops(device::Queue& queue, const CropBatch& batch);

}  // namespace seer::kernels
