// SPDX-License-Identifier: Apache-2.0
// State of a run to and from text (to share it over ranks, to checksum it) and the /state group of state.h5.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/h5/file.hpp"

namespace seer::checkpoint {

/// Everything but the values of the method's tensors, to the bit.
std::vector<std::uint8_t> pack(const State& state);
/// The method's tensors then have their size.
void unpack(const std::vector<std::uint8_t>& bytes, State& state);
/// The values of the method's tensors one after the other, in the order of their names.
std::vector<float> tensor_values(const State& state);
/// The reverse, of a state that was unpacked; Error(file) where it has another number of values.
void set_tensor_values(State& state, std::span<const float> values);
/// Makes `state` the root's on every rank, to the bit. Collective.
void share(const comm::Communicator& comm, State& state);
/// XXH3 of every value of the state, the method's tensors and the configuration included.
std::uint64_t state_checksum(const State& state);
/// Writes /state with its values, format, version, config and build. Serial.
void write_state(h5::File& file, const State& state);
/// Error(file) where something is missing or of another kind. Serial.
State read_state(const h5::File& file);

}  // namespace seer::checkpoint
