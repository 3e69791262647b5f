// SPDX-License-Identifier: Apache-2.0
// What a machine is best used with: a precision, and ranks and threads for the cores of a node.
#include <fmt/format.h>

#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/plan/plan.hpp"

namespace seer::plan {
namespace {

/// How many threads of ranks of their own do as much as these threads of a rank.
double speed_of(std::int64_t threads, double lost) {
  const auto t = static_cast<double>(threads);
  return t / (1 + lost * (t - 1));
}

/// The same node, with other ranks. What ranks share (memory, network adapters, cores that read) is divided anew.
config::Machine with_threads(config::Machine m, std::int64_t threads) {
  const double share = static_cast<double>(threads) / static_cast<double>(m.cores_per_rank);
  const auto faster = [&](double lost) { return speed_of(threads, lost) / speed_of(m.cores_per_rank, lost); };
  for (double* peak : {&m.fp32, &m.bf16, &m.fp16_o1}) *peak *= faster(m.threads_lost);
  m.bytes_per_s *= faster(m.passes_lost);
  for (double* part : {&m.rank_bytes, &m.cache_bytes, &m.cluster.bytes_per_s, &m.reader_cores}) *part *= share;
  m.ranks_per_node = m.ranks_per_node * m.cores_per_rank / threads;
  m.cores_per_rank = threads;
  return m;
}

}  // namespace

std::string precision_for(const config::Machine& machine) {
  const bool rates = std::ranges::any_of(machine.rates, [](const auto& rate) { return rate.precision == "bf16"; });
  // Vector instructions for bf16 do at most twice the work of fp32's; AMX does eight times.
  const double least = machine.backend == "host" ? 3 : 1.01;
  return rates && machine.bf16 >= least * machine.fp32 ? "bf16" : "fp32";
}

std::vector<Split> splits(const config::Config& config, const config::Machine& machine, train::Topology topology) {
  std::vector<Split> out;
  const auto cores = machine.ranks_per_node * machine.cores_per_rank;
  const auto all_cores = topology.ranks * machine.cores_per_rank;
  // A job whose ranks do not fill nodes cannot be divided among their cores in another way.
  if (machine.backend != "host" || topology.ranks_per_node != machine.ranks_per_node || all_cores % cores != 0)
    return out;
  for (std::int64_t threads = 1; threads <= cores; ++threads) {
    if (cores % threads != 0) continue;
    const auto node = with_threads(machine, threads);
    Split split{.ranks = all_cores / threads, .ranks_per_node = node.ranks_per_node, .threads = threads};
    auto changed = config;
    auto& group = changed.parallel.bn_group_size;
    const auto images_of = [&config](std::int64_t ranks, std::int64_t in_group) {
      return config.data.global_batch / ranks * std::min(in_group, ranks);
    };
    const auto wanted = images_of(topology.ranks, group);
    group = std::max<std::int64_t>(1, std::min<std::int64_t>(group, topology.ranks) * split.ranks / topology.ranks);
    if (const auto images = images_of(split.ranks, group); images != wanted)
      split.note = fmt::format("BatchNorm over {} images, not {}", images, wanted);
    try {
      const auto report =
          predict(changed, node,
                  {.ranks = static_cast<int>(split.ranks), .ranks_per_node = static_cast<int>(split.ranks_per_node)});
      split.step_s = report.step_s;
      split.rank_bytes = report.memory.footprint.total();
      if (!report.fits) split.refused = "it does not fit";
    } catch (const Error& error) {
      split.refused = error.what();
    }
    out.push_back(split);
  }
  return out;
}

}  // namespace seer::plan
