// SPDX-License-Identifier: Apache-2.0
// What `seer plan` is told about a machine: inputs/machines/*.toml, written by hand from data sheets or by
// `seer plan --calibrate`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::config {

/// Achieved share of the peak of one kind of product at one width (see device::Work), 0 to 1 (and a little more: a
/// peak may be a measured one).
struct MachineRate {
  std::string kind;       ///< pointwise, grouped, dense or gemm
  std::string precision;  ///< fp32, bf16 or fp16_o1
  double width = 1;       ///< channels; between two widths log(width) is interpolated, beyond the last it stays
  double forward = 0.5, backward_data = 0.5, backward_weights = 0.5;
  bool operator==(const MachineRate&) const = default;
};

struct MachineLink {
  double latency_s = 0;
  double bytes_per_s = 1;  ///< one direction, a rank
  bool operator==(const MachineLink&) const = default;
};

struct Machine {
  std::string name;
  /// Where ranks compute. "host": oneDNN's packed weights and workspaces and a checkpoint's copy count as memory.
  std::string backend = "device";
  std::string processor;  ///< of a host that was measured, as the system names it; "": not told
  std::int64_t ranks_per_node = 1, cores_per_rank = 1;

  double rank_bytes = 0, reserved_bytes = 0;  ///< of one rank in all; taken before the program's own
  double bytes_per_s = 1, efficiency = 1;     ///< memory: peak, and share that streaming kernels reach
  double cache_bytes = 0, cache_speedup = 1;  ///< kernels that touch less than this run so many times faster
  double half_speedup = 1;                    ///< of bytes, in kernels on 16-bit tensors
  double launch_s = 0;                        ///< of every kernel
  double host_link_bytes_per_s = 1.2e10;      ///< of a device: copies from its memory to the host's

  double fp32 = 1, bf16 = 1, fp16_o1 = 1;  ///< peak of one rank, FLOP/s, dense
  std::vector<MachineRate> rates;

  MachineLink node, cluster;          ///< between ranks of a node; between nodes
  double overlap = 1;                 ///< share of communication beside computation that costs the computation nothing
  double reduce_scatter_speedup = 1;  ///< of its bytes; those of an all-reduce make one
  double straggle = 0;   ///< of the computation's time, what ranks wait for the one that is slowest just then
  double meeting_s = 0;  ///< and at every collective that they wait for, beside its own time; their turn on a core, too

  double read_bytes_per_s = 1, write_bytes_per_s = 1;            ///< file system, of the whole job
  double decode_pixels_per_s = 1, crop_pixels_per_s = 1;         ///< one core
  double mean_image_pixels = 190000, mean_image_bytes = 110000;  ///< of the data set
  double reader_cores = 0;   ///< of a rank, beside those that compute; 0: the loader shares the cores that compute
  double data_measured = 0;  ///< 1: decoding and cropping were measured on images; 0: they are estimates
  double failures_per_node_per_day = 0;

  double peak(const std::string& precision) const;
  bool operator==(const Machine&) const = default;
};

/// Error(input) naming file, line and key for what is missing, unknown or out of range.
Machine load_machine(const std::string& path);
/// Complete file: load_machine() of it gives the same. `comment` goes to its head, one line or several.
std::string to_toml(const Machine& machine, const std::string& comment);

}  // namespace seer::config
