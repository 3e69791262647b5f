// SPDX-License-Identifier: Apache-2.0
// seer bench step --passes: time, bytes and rate of each kind of work, against the memory's own rate.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/device/recorder.hpp"

namespace seer::app {

/// What one rank's recorder saw, and what the memory gives to each rank while all use it.
struct Passes {
  std::vector<device::Recorder::Row> rows = {};
  std::int64_t updates = 1;
  double memory_bytes_per_ms = 0;
};

/// Collective. dst += src over arrays that no cache holds, on all ranks at once: the best of some runs.
double measure_memory(const comm::Communicator& world, device::Space space);

nlohmann::json to_json(const Passes& passes);
/// Longest first. Of an update. No final newline.
std::string to_table(const Passes& passes);

}  // namespace seer::app
