// SPDX-License-Identifier: Apache-2.0
// Converts the state of a run to and from bytes (to share it over ranks, to checksum it), and to and from the /state
// group of state.h5.
#pragma once

#include <span>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/h5/file.hpp"

namespace seer::checkpoint {

/// Packs everything except the values of the method's tensors. Bit-exact.
std::string pack(const State& state);
/// The inverse. Gives the method's tensors their sizes, but not their values.
void unpack(const std::string& bytes, State& state);
/// The values of the method's tensors, concatenated in the order of their names.
std::vector<float> tensor_values(const State& state);
/// The inverse, for an unpacked state. Error(file) if the number of values differs.
void set_tensor_values(State& state, std::span<const float> values);
/// XXH3 of all values of the state, including the method's tensors and the configuration.
std::uint64_t state_checksum(const State& state);
/// Writes /state with its values, format, version, config and build. Serial.
void write_state(h5::File& file, const State& state);
/// Error(file) if a value is missing or has a wrong type. Serial.
State read_state(const h5::File& file);

}  // namespace seer::checkpoint
