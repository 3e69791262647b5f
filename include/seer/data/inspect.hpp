// SPDX-License-Identifier: Apache-2.0
// What an HDF5 file holds, as JSON text.
#pragma once

#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// A shard: counts, classes, images a class, sizes, where the arrays lie; `verify` reads every image and compares its
/// checksum ("damaged": the first of them). Any other HDF5 file: its groups, data sets with shapes, attributes, and the
/// number of values below /model, and with `verify` that nothing was compared. `alone`: a communicator of one rank.
/// Error(file): not readable as HDF5, malformed.
std::string inspect_hdf5(const std::string& path, bool verify, const comm::Communicator& alone);

/// The *.h5 of a folder, each as above, and the sets they form. "problems" names those that are no readable shards (and
/// with `verify` damaged ones) and what is wrong with the sets; "problem" is there if that makes the folder unusable.
std::string inspect_folder(const std::string& folder, bool verify, const comm::Communicator& alone);

/// The "problem" of a file that was to be verified and cannot be.
inline constexpr const char* kNothingToCompare =
    "nothing to compare: a file of this kind holds no checksums (those of a checkpoint are in its folder: verify that)";

}  // namespace seer::data
