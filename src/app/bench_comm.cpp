// SPDX-License-Identifier: Apache-2.0
// `seer bench comm`: time and bandwidth of the collectives over all ranks, by buffer size. memcpy in the same run (all
// ranks at once) is the yardstick: on one node no collective can beat the memory.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "bench_comm.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/device/memory.hpp"

namespace seer::app {

Measured measure(const comm::Communicator& world, const std::string& name, std::int64_t bytes, double seconds,
                 const std::function<void()>& call) {
  call();  // the first call sets up connections and touches pages
  world.barrier();
  const Clock once;
  call();
  const double first_ms = world.all_reduce(once.ms(), comm::Op::max);
  const auto repetitions =
      static_cast<std::int64_t>(std::clamp(seconds * 1000 / std::max(first_ms, 1e-3), 3.0, 1000.0));
  // Calls too short for the clock are repeated between two readings of it.
  const auto calls = static_cast<std::int64_t>(std::clamp(std::ceil(0.01 / std::max(first_ms, 1e-5)), 1.0, 1000.0));
  std::vector<double> times;
  for (std::int64_t i = 0; i < repetitions; ++i) {
    world.barrier();
    const Clock clock;
    for (std::int64_t k = 0; k < calls; ++k) call();
    times.push_back(clock.ms() / static_cast<double>(calls));
  }
  world.all_reduce(std::span<double>(times), comm::Op::max);
  std::nth_element(times.begin(), times.begin() + repetitions / 2, times.end());
  return {name, bytes, times[static_cast<std::size_t>(repetitions / 2)], repetitions};
}

namespace {

std::vector<Measured> measure_all(const comm::Communicator& world, const CommOptions& options) {
  const auto size = static_cast<std::int64_t>(world.size());
  std::vector<Measured> out;
  device::Buffer buffer(static_cast<std::size_t>(options.max_bytes));
  device::Buffer other(static_cast<std::size_t>(options.max_bytes));
  out.push_back(measure(world, "barrier", 0, options.seconds, [&] { world.barrier(); }));
  for (std::int64_t bytes = options.min_bytes; bytes <= options.max_bytes; bytes *= 4) {
    const auto count = static_cast<std::size_t>(bytes) / sizeof(float);
    const std::span<float> values(buffer.f32(), count);
    // `bytes` is the final size of each rank's buffer, so one rank contributes only a piece of it to a gather.
    const std::size_t piece = count / static_cast<std::size_t>(size);
    out.push_back(measure(world, "memcpy", bytes, options.seconds,
                          [&] { std::memcpy(other.data(), buffer.data(), static_cast<std::size_t>(bytes)); }));
    out.push_back(measure(world, "all_reduce", bytes, options.seconds, [&] { world.all_reduce(values); }));
    out.push_back(measure(world, "broadcast", bytes, options.seconds,
                          [&] { world.broadcast(buffer.data(), static_cast<std::size_t>(bytes)); }));
    const auto gathered = static_cast<std::int64_t>(piece * sizeof(float)) * size;
    out.push_back(measure(world, "all_gather", gathered, options.seconds, [&] {
      world.all_gather(std::span<const float>(other.f32(), piece), std::span(buffer.f32(), piece * world.size()));
    }));
  }
  return out;
}

void print_table(const std::vector<Measured>& all, int ranks) {
  fmt::print("ranks {}; GB/s = bytes of a rank's buffer / time of the slowest rank; memcpy: every rank at once\n",
             ranks);
  fmt::print("{:<12}{:>14}{:>12}{:>10}{:>8}{:>12}\n", "call", "bytes", "ms", "GB/s", "times", "of memcpy");
  double yardstick = 0;
  for (const auto& m : all) {
    if (m.name == "memcpy") yardstick = m.gb_per_s();
    const bool moves = m.bytes > 0;
    fmt::print("{:<12}{:>14}{:>12.4f}{:>10}{:>8}{:>12}\n", m.name, m.bytes, m.ms,
               moves ? fmt::format("{:.3f}", m.gb_per_s()) : "-", m.repetitions,
               moves && yardstick > 0 ? fmt::format("{:.3f}", m.gb_per_s() / yardstick) : "-");
  }
}

void print_json(const std::vector<Measured>& all, int ranks) {
  nlohmann::json out = {{"bench", "comm"}, {"ranks", ranks}, {"results", nlohmann::json::array()}};
  for (const auto& m : all) {
    out["results"].push_back({{"call", m.name},
                              {"bytes", m.bytes},
                              {"ms", m.ms},
                              {"gb_per_s", m.gb_per_s()},
                              {"repetitions", m.repetitions}});
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

Run add_bench_comm(CLI::App& command) {
  auto options = std::make_shared<CommOptions>();
  const CLI::Range sizes(std::int64_t{4096}, std::int64_t{1} << 33);
  auto* min_bytes =
      command.add_option("--min-bytes", options->min_bytes, "Smallest buffer; the next ones are 4 times larger each")
          ->check(sizes)
          ->capture_default_str();
  auto* max_bytes = command.add_option("--max-bytes", options->max_bytes, "Largest buffer");
  max_bytes->check(sizes)->capture_default_str();
  command.add_option("--seconds", options->seconds, "Time spent on each line")
      ->check(CLI::Range(0.001, 60.0))
      ->capture_default_str();
  command.add_flag("--device", options->device, "Sums over NCCL on the ranks' devices; default sizes 1 KiB to 64 MiB");
  command.add_flag("--json", options->json, "Print JSON");
  return [options, min_bytes, max_bytes](const comm::Communicator& world) {
    if (options->device) {
      if (min_bytes->count() == 0) options->min_bytes = 1024;
      if (max_bytes->count() == 0) options->max_bytes = std::int64_t{64} << 20;
    }
    if (options->max_bytes < options->min_bytes) {
      throw Error(ExitCode::input,
                  fmt::format("--max-bytes {} is below --min-bytes {}", options->max_bytes, options->min_bytes))
          .as_agreed();
    }
    if (options->device) return bench_comm_device(world, *options);
    const auto all = measure_all(world, *options);
    if (world.is_root()) {
      options->json ? print_json(all, world.size()) : print_table(all, world.size());
    }
    return 0;
  };
}

}  // namespace seer::app
