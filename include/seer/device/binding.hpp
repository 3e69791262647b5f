// SPDX-License-Identifier: Apache-2.0
// Which device this process computes on: chosen from the launcher's environment before MPI and Kokkos start, because
// both settle on the device that is current then.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "seer/device/tensor.hpp"

namespace seer::device {

/// What the launcher says of this process.
struct Launch {
  int local_rank = -1;  ///< its place among the ranks of its node; -1: nobody says
  std::string source;   ///< the variable that does
};
using Environment = std::function<const char*(const char* name)>;
/// The process's own environment without an argument. Error(device) where a variable holds no number.
Launch read_launch();
Launch read_launch(const Environment& environment);

/// Error(device) where none is visible. Ranks beyond the devices share them: such ranks compute on the host alone.
int device_for(const Launch& launch, int visible_devices);

/// Whether code built for `architectures` (CMAKE_CUDA_ARCHITECTURES with commas: "80,90-real") runs on a device of
/// this compute capability (major * 10 + minor).
bool has_code_for(std::string_view architectures, int capability);

/// "all of 8", "none of 4", or the pairs: "0-1 2-3 of 4".
std::string pairs_line(int devices, const std::function<bool(int, int)>& connected);

/// What is wrong where two ranks compute on the same device, or "". `ids`: of each rank, its host and device_id().
std::string shared_device(std::span<const std::string> ids);
/// Keeps what shared_device() found, which all ranks know alike: chosen_space() then refuses all but the host.
void set_sharing(std::string who);
/// "" where every rank has a device of its own, as far as is known.
const std::string& sharing();

/// Before MPI and Kokkos. Makes this process's device current for its main thread and returns its number; -1 in a
/// host build. Error(device) in one line: no driver or one too old, no device, code missing.
int bind_device();
/// -1 where none is bound.
int bound_device();
/// PCI bus id and UUID; "" where none is bound.
std::string device_id();
/// Where to compute. `wanted`: "host", "device", or "auto": the device where one is bound and this build has its
/// kernels. Error(device) for a device that is not there, or that ranks share.
Space chosen_space(std::string_view wanted);
/// Name, memory, compute capability, versions, PCI bus id, peers, in one line; "" where none is bound.
std::string describe_device();

}  // namespace seer::device
