// SPDX-License-Identifier: Apache-2.0
// Description of a machine for `seer plan`: inputs/machines/*.toml, from data sheets or by `seer plan --calibrate`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace seer::config {

/// Fraction of the peak that one kind of product achieves at one width (see device::Work): 0 to 1, or a little more,
/// because the peak may itself be measured.
struct MachineRate {
  std::string kind;       ///< pointwise, grouped, dense or gemm
  std::string precision;  ///< fp32, bf16 or fp16_o1
  double width = 1;       ///< channels; interpolated over log(width) between two widths, constant beyond the last
  double forward = 0.5, backward_data = 0.5, backward_weights = 0.5;
};

struct MachineLink {
  double latency_s = 0;
  double bytes_per_s = 1;  ///< one direction, per rank
};

struct Machine {
  std::string name;
  /// Where ranks compute. With "host", oneDNN's packed weights and workspaces and a checkpoint's copy count as memory.
  std::string backend = "device";
  std::string processor;  ///< of a measured host, as the system names it; "": unknown
  std::int64_t ranks_per_node = 1, cores_per_rank = 1;

  double rank_bytes = 0, reserved_bytes = 0;  ///< per rank: in total; used by executable and libraries
  double bytes_per_s = 1, efficiency = 1;     ///< memory: peak, and the fraction that streaming kernels reach
  double cache_bytes = 0, cache_speedup = 1;  ///< kernels that touch fewer bytes than this run this many times faster
  double half_speedup = 1;                    ///< of memory traffic, in kernels on 16-bit tensors
  double launch_s = 0;                        ///< per kernel
  double host_link_bytes_per_s = 1.2e10;      ///< copies from device memory to host memory

  /// t threads of a rank do the products of t / (1 + threads_lost (t - 1)) ranks of one thread, and so with passes over
  /// memory. 1: further threads do nothing.
  double threads_lost = 0.05, passes_lost = 0.05;
  double fp32 = 1, bf16 = 1, fp16_o1 = 1;  ///< peak of one rank, FLOP/s, dense
  std::vector<MachineRate> rates;

  MachineLink node, cluster;          ///< between ranks of a node; between nodes
  double overlap = 1;                 ///< fraction of overlapped communication that does not slow the computation
  double reduce_scatter_speedup = 1;  ///< how much faster a reduce-scatter is than in the model
  double straggle = 0;                ///< wait for the slowest rank, as a fraction of the computation's time
  double meeting_s = 0;               ///< extra wait per exposed collective, also for a turn on a core

  double read_bytes_per_s = 1, write_bytes_per_s = 1;            ///< file system, for the whole job
  double decode_pixels_per_s = 1, crop_pixels_per_s = 1;         ///< one core
  double mean_image_pixels = 190000, mean_image_bytes = 110000;  ///< of the data set
  double reader_cores = 0;   ///< per rank, besides cores that compute; 0: the loader uses the cores that compute
  double data_measured = 0;  ///< 1: decoding and cropping were measured on images; 0: they are estimates
  double failures_per_node_per_day = 0;

  double peak(const std::string& type) const { return type == "bf16" ? bf16 : type == "fp16_o1" ? fp16_o1 : fp32; }
};

/// Throws Error(input) naming file, line and key for everything missing, unknown or out of range.
Machine load_machine(const std::string& path);
/// Returns a complete file for load_machine() (numbers are rounded to 4 to 6 digits). `comment`: lines for its head.
std::string to_toml(const Machine& machine, const std::string& comment);

}  // namespace seer::config
