// SPDX-License-Identifier: Apache-2.0
// Images of a data set in order, through the evaluation transform (method.md 8.1: shorter side to `resize`, centre
// crop, normalised), read and decoded ahead by worker threads. What features and k-NN are computed from.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/image.hpp"
#include "seer/data/shard.hpp"
#include "seer/device/tensor.hpp"

namespace seer::data {

struct EvalOptions {
  std::int64_t resize = 256;  ///< shorter side, pixels; longer = int(resize * long / short), as torchvision
  std::int64_t crop = 224;    ///< centre crop, pixels; smaller images are padded with black
  std::int64_t raw_side = 0;  ///< > 0: no crop; squashed to raw_side x raw_side, values / 255 (k-NN's floor)
  std::int64_t batch = 32;    ///< images of a batch; the last one may be smaller
  std::int64_t batches_ahead = 2;
  std::int64_t threads = 1;
  std::int64_t max_pixels = 0;    ///< larger images count as bad; 0: those over the data set's own limit
  config::Augment normalisation;  ///< mean and std
};

struct EvalBatch {
  std::int64_t images = 0;
  device::Tensor pixels;               ///< [images, side, side, 3] float on the host
  std::vector<std::uint64_t> indices;  ///< in the data set, ascending
  std::vector<std::int32_t> labels;    ///< -1: none
  std::vector<std::uint8_t> bad;       ///< 1: does not decode; its pixels are 0, the mean colour
};

/// Not collective: each rank reads its own range. `data` must outlive the reader.
class EvalReader {
 public:
  /// Images [first, last).
  EvalReader(const DataSet& data, std::uint64_t first, std::uint64_t last, const EvalOptions& options);
  ~EvalReader();
  EvalReader(const EvalReader&) = delete;
  EvalReader& operator=(const EvalReader&) = delete;

  /// The next batch, valid until the next call; nullptr after the last one. Throws Error(file) on failing reads.
  const EvalBatch* next();
  /// Bad images in the batches handed out so far (each was logged with its shard and index).
  std::int64_t bad_images() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One image squashed to side x side by Pillow's bilinear resize: side * side * 3 values in [0, 1], row-major RGB.
void raw_pixels(const Image& image, std::int64_t side, float* out);

}  // namespace seer::data
