// SPDX-License-Identifier: Apache-2.0
// Changed copies of images, to test retrieval with any photos: the kinds of the CopyDays set (Douze et al. 2009).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/image.hpp"
#include "seer/data/pack.hpp"
#include "seer/data/shard.hpp"

namespace seer::data {

/// For example "crop-10" (10 % of the area is cut off), "jpeg-75" (a quarter of the side, but at least 64 pixels;
/// quality 75), "strong-blur". The part before '-' is the kind's group.
const std::vector<std::string>& copy_kinds();

/// A copy before it is encoded.
struct Copy {
  Image image;
  int quality = 90;  ///< of the JPEG
};
/// Position, angle, colours and strokes are drawn from (seed, index, kind) alone. `kind`: place in copy_kinds().
Copy copy_of(const Image& original, std::size_t kind, std::uint64_t seed, std::uint64_t index);

struct CopyOptions {
  std::string folder;
  std::int64_t images = 0;  ///< the first ones of the data set; 0: all
  std::uint64_t seed = 0;
  Existing existing = Existing::refuse;  ///< append is not possible
};

struct CopyResult {
  SynthResult originals, copies;
};

/// Collective. Writes two sets into the folder: originals-*.h5 (the files as they are) and copies-*.h5, one of each
/// kind for each original, named "<original's name>+<kind>". The label of both is the original; its class is the
/// original's name, or "image 17" where names are missing or repeat. The files do not depend on the number of ranks.
/// Error(file): an image that does not decode.
CopyResult write_copies(const DataSet& data, const CopyOptions& options, const comm::Communicator& comm);

}  // namespace seer::data
