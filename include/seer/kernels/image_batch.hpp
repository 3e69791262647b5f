// SPDX-License-Identifier: Apache-2.0
// Makes the crops of a whole batch from decoded 8-bit images with a dozen kernels. One kernel per crop and operation
// would mean thousands of launches per update. A table, drawn at random on the host, lists the operations for each
// crop. Host and device give the same bits as the operations of kernels/image.hpp; the noise of an erased rectangle may
// differ by the rounding of logarithm, sine and cosine.
#pragma once

#include <cstddef>
#include <cstdint>

#include "seer/device/queue.hpp"
#include "seer/kernels/image.hpp"

namespace seer::kernels {

enum class Colour : std::uint8_t { brightness, contrast, saturation, hue };

/// Random erasing: normal noise instead of a rectangle of a normalised crop. The noise comes from the stream
/// (seed, Purpose::erasing_noise, position, crop): pixel i of the crop has its draws [4 i, 4 i + 4).
struct Erasure {
  Box box;  ///< inside the crop; of width 0: nothing is erased
  std::uint64_t seed = 0, position = 0;
  std::uint32_t crop = 0;
};
/// Erases in a crop [size, size, 3] on the host: a plain loop on the calling thread.
void erase(const Erasure& erasure, std::int64_t size, float* crop);

/// One crop: resize, mirror, the first `changes` colour changes of order[], grey, blur, normalisation, erasing.
struct CropJob {
  std::int64_t pixels = 0;     ///< bytes from CropBatch::pixels to the image's first pixel (R, G, B interleaved)
  std::int64_t row_bytes = 0;  ///< distance between the image's rows
  Box box;                     ///< inside the image
  Flip flip = Flip::no;
  bool grey = false, blur = false;
  std::int32_t changes = 0;  ///< used entries of order[]
  Colour order[4] = {};
  float brightness = 1, contrast = 1, saturation = 1;  ///< factors
  std::int32_t hue = 0;                                ///< hue_shift() of the factor
  BlurBox blur_box;
  Erasure erasure;
  std::int64_t weights = 0;  ///< offset of its resampling weights in the scratch, set by lay_out()
};
/// Converts adjust_hue's factor to a value of CropJob::hue.
std::int32_t hue_shift(double factor);

/// The part of a crop's scratch whose size depends on its box.
struct CropRoom {
  std::int64_t rows = 0;     ///< of the box after the horizontal resize
  std::int64_t weights = 0;  ///< for resampling
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
  const CropJob* jobs = nullptr;        ///< [crops]; like all pointers below, reachable by the queue's kernels
  const std::int64_t* first = nullptr;  ///< [crops + 1]: sum of the box heights of all earlier crops
  CropRoom room;                        ///< of all crops, from lay_out()
  const std::uint8_t* pixels = nullptr;
  void* scratch = nullptr;  ///< crop_scratch_bytes(); contents need not last beyond a call
  float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
  float* out = nullptr;  ///< [crops, size, size, 3]
};

/// Fills in jobs[].weights and first[crops + 1]; returns the room of all crops together.
CropRoom lay_out(CropJob* jobs, std::int64_t crops, std::int64_t size, std::int64_t* first);
std::size_t crop_scratch_bytes(std::int64_t crops, std::int64_t size, const CropRoom& room);

/// Computes batch.out. Does not wait for a device queue.
void make_crops(device::Queue& queue, const CropBatch& batch);

}  // namespace seer::kernels
