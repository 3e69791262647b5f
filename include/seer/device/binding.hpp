// SPDX-License-Identifier: Apache-2.0
// Chooses the device that this process computes on, from the launcher's environment, before MPI and Kokkos start: both
// settle on the device that is current then.
#pragma once

#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "seer/device/tensor.hpp"

namespace seer::device {

using Environment = std::function<const char*(const char* name)>;
/// This process's index among the ranks of its node, from the launcher's environment variables; -1 if it is unknown.
/// Throws Error(device) if the variable holds no number.
int local_rank(const Environment& environment = ::getenv);

/// Returns this rank's device; Error(device) if none is visible. Ranks beyond the number of devices share them; such
/// ranks may compute only on the host.
int device_for(int local_rank, int visible_devices);

/// True if code built for `architectures` (CMAKE_CUDA_ARCHITECTURES with commas: "80,90-real") runs on a device of this
/// compute capability (major * 10 + minor).
bool has_code_for(std::string_view architectures, int capability);

/// Formats the connected pairs of devices: "all of 8", "none of 4", or "0-1 2-3 of 4".
std::string pairs_line(int devices, const std::function<bool(int, int)>& connected);

/// Returns an error text if two ranks compute on the same device, else "". `ids`: for each rank, its host and
/// device_id().
std::string shared_device(std::span<const std::string> ids);
/// Result of shared_device(), the same on all ranks. Set once, before there are other threads. If it is not "",
/// chosen_space() allows only the host.
std::string& sharing();

/// Call before MPI and Kokkos start. Makes this process's device current for its main thread and returns its number; -1
/// in a host build without stand-in (device/stand_in.hpp). One-line Error(device): no driver or one too old, no device,
/// code missing. Error(input) if SEER_STAND_IN_DEVICE is set to anything but 0, 1 or "".
int bind_device();
/// Number of the bound device; -1 if none is bound.
int bound_device();
/// Compute capability of the bound device (major * 10 + minor); 0 if none is bound, and of the stand-in.
int compute_capability();
/// PCI bus id and UUID of the bound device; "" if none is bound.
std::string device_id();
/// Chooses where to compute. `wanted`: "host", "device", or "auto", which means the device if one is bound and this
/// build has kernels for it. Throws Error(device) if the device is missing or ranks share it, Error(input) if the build
/// has no kernels for devices.
Space chosen_space(std::string_view wanted);
/// Describes the bound device in one line: name, memory, compute capability, versions, PCI bus id, peers; "" if none is
/// bound.
std::string describe_device();

}  // namespace seer::device
