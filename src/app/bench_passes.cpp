// SPDX-License-Identifier: Apache-2.0
#include "bench_passes.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "seer/base/clock.hpp"
#include "seer/device/memory.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::app {

double measure_memory(const comm::Communicator& world, device::Space space) {
  constexpr std::int64_t kFloats = std::int64_t{1} << 26;
  constexpr int kRuns = 8;
  std::optional<device::DeviceQueue> own;
  if (space == device::Space::device) own.emplace();
  auto queue = own ? own->queue() : device::Queue{};
  const device::Buffer a(kFloats * sizeof(float), space), b(kFloats * sizeof(float), space);
  const device::Shape shape{1, 1, 1, kFloats};
  const device::Tensor from{a.data(), shape, DType::f32, space}, to{b.data(), shape, DType::f32, space};
  kernels::fill(queue, from, 1);
  kernels::fill(queue, to, 1);
  double best_ms = std::numeric_limits<double>::max();
  for (int run = 0; run < kRuns; ++run) {
    queue.wait();
    world.barrier();
    const Clock clock;
    kernels::add(queue, from, to);
    queue.wait();
    best_ms = std::min(best_ms, world.all_reduce(clock.ms(), comm::Op::max));
  }
  return static_cast<double>(from.bytes() + 2 * to.bytes()) / best_ms;
}

nlohmann::json to_json(const Passes& p) {
  auto rows = nlohmann::json::array();
  for (const auto& row : p.rows) {
    const auto updates = static_cast<double>(p.updates);
    rows.push_back({{"what", row.label},
                    {"calls", static_cast<double>(row.calls) / updates},
                    {"ms", row.ms / updates},
                    {"bytes", row.bytes / updates},
                    {"flops", row.flops / updates}});
  }
  return {{"rows", rows}, {"memory_gb_per_s", p.memory_bytes_per_ms / 1e6}};
}

std::string to_table(const Passes& p) {
  auto rows = p.rows;
  std::ranges::sort(rows, std::greater{}, &device::Recorder::Row::ms);
  double total_ms = 0;
  for (const auto& row : rows) total_ms += row.ms;
  auto text = fmt::format("of an update, rank 0; the memory gives each rank {:.1f} GB/s\n  {:<34}{:>8}{:>10}{:>9}{:>9}",
                          p.memory_bytes_per_ms / 1e6, "what", "calls", "ms", "share", "GB") +
              fmt::format("{:>9}{:>12}{:>9}", "GB/s", "of memory", "GFLOP/s");
  const auto updates = static_cast<double>(p.updates);
  for (const auto& row : rows) {
    text += fmt::format("\n  {:<34}{:>8.0f}{:>10.2f}{:>7.1f} %{:>9.3f}", row.label,
                        static_cast<double>(row.calls) / updates, row.ms / updates, 100 * row.ms / total_ms,
                        row.bytes / updates / 1e9);
    if (row.bytes > 0)
      text += fmt::format("{:>9.2f}{:>10.0f} %", row.bytes / row.ms / 1e6,
                          100 * row.bytes / row.ms / p.memory_bytes_per_ms);
    if (row.flops > 0) text += fmt::format("{:>9.1f}", row.flops / row.ms / 1e6);
  }
  return text;
}

}  // namespace seer::app
