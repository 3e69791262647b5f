// SPDX-License-Identifier: Apache-2.0
// The part that needs no device: from the environment to a device number, and the messages about it.
#include "seer/device/binding.hpp"

#include <fmt/format.h>

#include <charconv>
#include <map>
#include <system_error>

#include "seer/base/error.hpp"
#include "seer/device/session.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::device {
namespace {

/// Parses the whole text; -1 if it is not a number.
int number_of(std::string_view text) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : -1;
}

}  // namespace

int local_rank(const Environment& environment) {
  // mpirun's own variables come first: inside a Slurm job, its ranks inherit the SLURM_LOCALID of the job's script.
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID",
                           "PMI_LOCAL_RANK", "SLURM_LOCALID"}) {
    const char* value = environment(name);
    if (value == nullptr) continue;
    const int rank = number_of(value);
    if (rank >= 0) return rank;
    throw Error(ExitCode::device,
                fmt::format("{}=\"{}\"; wanted the number of the rank on its node (0 or more)", name, value),
                "start ranks with mpirun or srun, or unset it");
  }
  return -1;
}

int device_for(int local_rank, int visible_devices) {
  if (visible_devices < 1) {
    throw Error(ExitCode::device, "no device is visible; every rank needs one",
                "request devices from the scheduler (--gpus-per-node) and check CUDA_VISIBLE_DEVICES; to run without "
                "devices, use the host build (cmake --preset host-release)");
  }
  if (local_rank < 0) return 0;  // started without a launcher: the only rank
  // If only one is visible, each rank may see a different one. The ranks find out when they compare their devices.
  return local_rank % visible_devices;
}

bool has_code_for(std::string_view architectures, int capability) {
  while (!architectures.empty()) {
    std::string_view one = architectures.substr(0, architectures.find(','));
    architectures.remove_prefix(std::min(one.size() + 1, architectures.size()));
    if (one == "native" || one == "all" || one == "all-major") return true;
    const auto cut_off = [&one](std::string_view ending) {
      if (!one.ends_with(ending)) return false;
      one.remove_suffix(ending.size());
      return true;
    };
    // Without a suffix, the build has both kinds: machine code, which also runs on later devices of the same
    // generation, and PTX, which the driver translates for any later device.
    const bool machine_code_only = cut_off("-real"), ptx_only = cut_off("-virtual");
    const bool exact = cut_off("a"), family = cut_off("f");
    const int built = number_of(one);
    if (built < 0 || capability < built) continue;
    if (exact && capability != built) continue;
    const bool same_generation = capability / 10 == built / 10;
    if (same_generation && !ptx_only) return true;
    if (!machine_code_only && (!family || same_generation)) return true;
  }
  return false;
}

std::string pairs_line(int devices, const std::function<bool(int, int)>& connected) {
  std::string pairs;
  int found = 0;
  for (int a = 0; a < devices; ++a) {
    for (int b = a + 1; b < devices; ++b) {
      if (!connected(a, b)) continue;
      ++found;
      pairs += fmt::format("{}-{} ", a, b);
    }
  }
  if (found == 0) return fmt::format("none of {}", devices);
  if (found == devices * (devices - 1) / 2) return fmt::format("all of {}", devices);
  return fmt::format("{}of {}", pairs, devices);
}

std::string shared_device(std::span<const std::string> ids) {
  std::map<std::string_view, std::size_t> first;
  for (std::size_t rank = 0; rank < ids.size(); ++rank) {
    const auto [at, is_new] = first.emplace(ids[rank], rank);
    if (!is_new)
      return fmt::format("ranks {} and {} share the device {}; every rank needs its own", at->second, rank, ids[rank]);
  }
  return "";
}

std::string& sharing() {
  static std::string who;
  return who;
}

Space chosen_space(std::string_view wanted) {
#if defined(SEER_CUDA)
  const bool built = kernels_need_device();
  const char* const missing = "Kokkos was built without CUDA, so kernels cannot run on a device";
  const char* const remedy = "set Kokkos_ROOT to a Kokkos with Kokkos_ENABLE_CUDA, or set parallel.device = \"host\"";
#else
  const bool built = has_stand_in();
  const char* const missing = "this is a host build";
  const char* const remedy = "use a device build (-DSEER_CUDA=ON, docs/device.md), or set parallel.device = \"auto\"";
#endif
  const bool there = built && bound_device() >= 0;
  if (wanted == "host" || (wanted == "auto" && !there)) return Space::host;
  if (there && !sharing().empty()) {
    throw Error(ExitCode::device, sharing(),
                "start one rank per device, or compute on the host: parallel.device = \"host\"");
  }
  if (there) return Space::device;
  if (!built) throw Error(ExitCode::input, fmt::format("parallel.device = \"device\": {}", missing), remedy);
  throw Error(ExitCode::device, "parallel.device = \"device\": this process has no device",
              "start on a node with devices, or set parallel.device = \"auto\"");
}

}  // namespace seer::device
