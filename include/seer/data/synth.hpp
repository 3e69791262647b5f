// SPDX-License-Identifier: Apache-2.0
// Procedural labelled images: a data set for machines without one. A class is a combination of texture, shape and
// layout. Colours, position, size, rotation, background and light are random and independent of the class.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/image.hpp"
#include "seer/data/pack.hpp"

namespace seer::data {

/// Number of combinations. Class c is the same combination whatever the seed and the number of classes.
inline constexpr std::int64_t kSynthClasses = 144;

/// For example "stripes-disc-single".
std::string synth_class_name(std::int64_t index);

/// Draws image `index` of a class, size x size pixels. `index` keys the random numbers.
Image synth_image(std::uint64_t seed, std::uint64_t index, std::int64_t class_index, std::int64_t size);

struct SynthOptions {
  std::string folder;  ///< where <name>-00000.h5 ... go
  std::string name = "images";
  std::int64_t classes = 10;  ///< image i has class i % classes
  std::int64_t images = 10000;
  std::int64_t size = 96;  ///< pixels per side
  std::uint64_t seed = 0;
  Existing existing = Existing::refuse;  ///< append: i starts at the number of images already in the folder
};

struct SynthResult {
  std::uint64_t images = 0, bytes = 0, shards = 0;
  double seconds = 0;
};

/// Collective. Writes JPEGs (quality 90) into shards. The files do not depend on the number of ranks. Error(file).
SynthResult synth(const SynthOptions& options, const comm::Communicator& comm);

}  // namespace seer::data
