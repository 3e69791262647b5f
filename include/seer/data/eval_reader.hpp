// SPDX-License-Identifier: Apache-2.0
// Reads the images of a data set in order and applies the evaluation transform (method.md 8.1: shorter side to
// `resize`, centre crop, normalised). Worker threads read and decode ahead. Features and k-NN use these images.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "seer/data/augment.hpp"
#include "seer/data/shard.hpp"
#include "seer/device/tensor.hpp"

namespace seer::data {

/// Random crops of each image instead of its centre, as the training makes them.
struct Views {
  std::int64_t count = 0;  ///< per image; 0: none
  CropKind kind;           ///< its mean and std are not used
  std::uint64_t seed = 0;  ///< with the image's index in the data set and the number of the crop, the random stream
};

struct EvalOptions {
  std::int64_t resize = 256;  ///< shorter side, pixels; longer = int(resize * long / short), as torchvision
  std::int64_t crop = 224;    ///< centre crop, pixels; smaller images are padded with black
  /// > 0: no crop and one image a batch: the longer side becomes at most this many pixels, the shorter one in
  /// proportion.
  std::int64_t whole = 0;
  bool squash = false;        ///< no crop: the whole image is resized to crop x crop, whatever its shape
  std::int64_t raw_side = 0;  ///< > 0: no crop; resize to raw_side x raw_side, values / 255 (baseline for k-NN)
  std::int64_t batch = 32;    ///< images per batch; the last batch may be smaller
  std::int64_t batches_ahead = 2;
  std::int64_t threads = 1;
  std::int64_t max_pixels = 0;    ///< larger images count as bad; 0: use the data set's own limit
  config::Augment normalisation;  ///< mean and std
  Views views;
  /// Changes a decoded image before anything else, in a worker thread; empty: nothing. Gets its index in the data set.
  std::function<void(std::uint64_t index, Image& image)> change;
};

struct EvalBatch {
  std::int64_t images = 0;
  device::Tensor pixels;               ///< [images, or images * views, height, width, 3] float on the host
  std::vector<std::uint64_t> indices;  ///< indices in the data set, ascending
  std::vector<std::int32_t> labels;    ///< -1: no label, or several targets
  std::vector<std::uint8_t> bad;       ///< 1: the image does not decode; its pixels are 0, the mean colour
};

/// Not collective: each rank reads its own range. `data` must outlive the reader.
class EvalReader {
 public:
  /// Reads images [first, last).
  EvalReader(const DataSet& data, std::uint64_t first, std::uint64_t last, const EvalOptions& options);
  ~EvalReader();

  /// Returns the next batch, valid until the next call; nullptr after the last one. Error(file) if a read fails.
  const EvalBatch* next();
  /// Number of bad images in the batches returned so far. Each was logged with its shard and index.
  std::int64_t bad_images() const { return bad_images_; }

 private:
  std::int64_t bad_images_ = 0;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Resizes an image to side x side (Pillow's bilinear resize): side * side * 3 values in [0, 1], row-major RGB.
void raw_pixels(const Image& image, std::int64_t side, AugmentScratch& scratch, float* out);

}  // namespace seer::data
