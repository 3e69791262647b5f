// SPDX-License-Identifier: Apache-2.0
// Describes the contents of an HDF5 file as JSON text.
#pragma once

#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// For a shard: counts, classes, images per class, sizes and where the arrays lie. `verify` also reads every image and
/// compares its checksum ("damaged" lists the first failures). For any other HDF5 file: its groups, data sets with
/// shapes, attributes and the number of values below /model; with `verify` the text says that nothing was compared.
/// `alone`: a communicator of one rank. Error(file) if the file is malformed or not readable as HDF5.
std::string inspect_hdf5(const std::string& path, bool verify, const comm::Communicator& alone);

/// Describes each *.h5 file of a folder as above, and the sets that they form. "problems" lists files that are not
/// readable shards (with `verify` also damaged ones) and what is wrong with the sets. "problem" is present if these
/// make the folder unusable.
std::string inspect_folder(const std::string& folder, bool verify, const comm::Communicator& alone);

/// The "problem" of a file that should be verified but cannot be.
inline constexpr const char* kNothingToCompare =
    "nothing to compare: this kind of file holds no checksums (a checkpoint's are in its folder: verify the folder)";

}  // namespace seer::data
