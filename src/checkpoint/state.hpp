// SPDX-License-Identifier: Apache-2.0
// State of a run to and from text (to share it over ranks, to checksum it) and the /state group of state.h5.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/checkpoint/checkpoint.hpp"
#include "seer/data/h5.hpp"

namespace seer::checkpoint {

/// Everything but the queue's values, to the bit.
std::vector<std::uint8_t> pack(const State& state);
void unpack(const std::vector<std::uint8_t>& bytes, State& state);
/// Makes `state` the root's on every rank, to the bit. Collective.
void share(const comm::Communicator& comm, State& state);
/// XXH3 of every value of the state, the queue and the configuration included.
std::uint64_t state_checksum(const State& state);
/// Writes /state with its values, format, version, config and build. Serial.
void write_state(data::h5::File& file, const State& state);
/// Error(file) where something is missing or of another kind. Serial.
State read_state(const data::h5::File& file);

}  // namespace seer::checkpoint
