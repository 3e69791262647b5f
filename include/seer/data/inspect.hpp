// SPDX-License-Identifier: Apache-2.0
// What an HDF5 file holds, as JSON text.
#pragma once

#include <string>

#include "seer/comm/communicator.hpp"

namespace seer::data {

/// A shard: counts, classes, images a class, sizes, where the arrays lie; `verify` reads every image and compares its
/// checksum ("damaged": the first of them). Any other HDF5 file: its groups, data sets with shapes, attributes, and the
/// number of values below /model. `alone`: a communicator of one rank. Error(file): not readable as HDF5, malformed.
std::string inspect_hdf5(const std::string& path, bool verify, const comm::Communicator& alone);

}  // namespace seer::data
