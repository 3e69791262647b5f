// SPDX-License-Identifier: Apache-2.0
// Shards of images that the program makes itself: each image from its number alone. Private to the module.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seer/data/pack.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {

struct GeneratedImage {
  std::string bytes;  ///< encoded
  std::uint32_t width = 0, height = 0;
  std::int32_t label = -1;
  std::string name;  ///< all images have one, or none has
};

struct Generation {
  std::string what;          ///< for messages
  std::string folder, name;  ///< <folder>/<name>-00000.h5 ...
  Existing existing = Existing::refuse;
  std::int64_t images = 0;
  std::int64_t per_shard = 0;  ///< images at most
  std::uint64_t max_pixels = kUsualMaxPixels;
  std::vector<std::string> classes;  ///< names of the labels
  /// A text that tells everything that determines images [begin, last): sets of equal texts are equal.
  std::function<std::string(std::int64_t begin, std::int64_t last)> identity;
  std::function<GeneratedImage(std::int64_t number)> make;  ///< called for each number on some rank
};

/// Collective. Images are numbered from the number of those that the folder keeps (Existing::append). The files do not
/// depend on the number of ranks. Each rank holds 64 images for each rank at a time, rank 0 a whole shard.
SynthResult generate(const Generation& generation, const comm::Communicator& comm);

/// 4:2:0, exact DCT. Thread-safe.
std::string encode_jpeg(const Image& image, int quality);

}  // namespace seer::data
