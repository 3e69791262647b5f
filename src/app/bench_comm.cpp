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
#include <optional>
#include <span>
#include <utility>

#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/comm/user_buffer.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/plan/trial.hpp"

namespace seer::app {
namespace {

struct Options {
  std::int64_t min_bytes = 4096;
  std::int64_t max_bytes = std::int64_t{256} << 20;
  double seconds = 0.2;
  bool device = false, json = false;
};

struct Measured {
  std::string name;
  std::int64_t bytes;
  double ms;  ///< median over the repetitions, each the slowest rank's time
  std::int64_t repetitions;
  double gb_per_s() const { return ms > 0 ? static_cast<double>(bytes) / ms / 1e6 : 0; }
};

/// Times a call that all ranks make at once.
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
  return {name, bytes, plan::median(times), repetitions};
}

std::vector<Measured> measure_all(const comm::Communicator& world, const Options& options) {
  std::vector<Measured> out;
  const auto add = [&](const char* name, std::size_t bytes, const std::function<void()>& call) {
    out.push_back(measure(world, name, static_cast<std::int64_t>(bytes), options.seconds, call));
  };
  const device::Buffer buffer(static_cast<std::size_t>(options.max_bytes)), other(buffer.bytes());
  add("barrier", 0, [&] { world.barrier(); });
  for (auto bytes = static_cast<std::size_t>(options.min_bytes); bytes <= buffer.bytes(); bytes *= 4) {
    const auto count = bytes / sizeof(float);
    // `bytes` is the final size of each rank's buffer, so one rank contributes only a piece of it to a gather.
    const auto ranks = static_cast<std::size_t>(world.size()), piece = count / ranks;
    add("memcpy", bytes, [&] { std::memcpy(other.data(), buffer.data(), bytes); });
    add("all_reduce", bytes, [&] { world.all_reduce(std::span(buffer.f32(), count)); });
    add("broadcast", bytes, [&] { world.broadcast(buffer.data(), bytes); });
    add("all_gather", piece * sizeof(float) * ranks,
        [&] { world.all_gather(std::span<const float>(other.f32(), piece), std::span(buffer.f32(), piece * ranks)); });
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

// --device: sums over NCCL on the communicators that a run can have: all ranks; the ranks of a node; the ranks with the
// same place on all nodes. Times each call alone, as BatchNorm waits for it, and many calls in a row, as in a bucket of
// gradients.
#if !defined(SEER_CUDA)

int run_on_device(const comm::Communicator&, const Options&) {
  throw Error(ExitCode::device, "this build of seer supports no devices: nothing was measured over NCCL",
              "build it with -DSEER_CUDA=ON; without --device MPI is measured")
      .as_agreed();
}

#else

constexpr int kInARow = 20;
constexpr std::int64_t kMostStatisticsBytes = std::int64_t{1} << 20;  ///< BatchNorm's sums are some KiB

struct Group {
  const char* name;
  comm::Communicator ranks;
};

struct Line {
  std::string group;
  int ranks;
  Measured alone, in_a_row;
};

/// The communicators with more than one rank, each set of ranks only once.
std::vector<Group> groups_of(const comm::Communicator& world) {
  std::vector<Group> out;
  out.push_back({"world", world.duplicate().named("world")});
  auto node = world.node().named("node");
  const auto smallest = world.all_reduce(std::int64_t{node.size()}, comm::Op::min);
  const auto largest = world.all_reduce(std::int64_t{node.size()}, comm::Op::max);
  if (largest == world.size() || smallest != largest) return out;
  auto across = world.split(node.rank()).named("across");
  if (largest > 1) {
    out.push_back({"node", std::move(node)});
    out.push_back({"across", std::move(across)});
  }
  return out;
}

template <class Values>
Line measure_sum(const comm::Communicator& world, const Group& group, comm::BlockCommunicator& nccl,
                 device::Queue& queue, Values* values, const std::string& name, std::int64_t bytes, double seconds) {
  const std::span summed(values, static_cast<std::size_t>(bytes) / sizeof(Values));
  const auto alone = measure(world, name, bytes, seconds, [&] {
    nccl.all_reduce(queue, summed);
    queue.wait();
  });
  auto in_a_row = measure(world, name, bytes, seconds, [&] {
    for (int i = 0; i < kInARow; ++i) nccl.all_reduce(queue, summed);
    queue.wait();
  });
  in_a_row.ms /= kInARow;
  return {group.name, group.ranks.size(), alone, in_a_row};
}

void print_table(const std::vector<Line>& lines, const std::string& device) {
  fmt::print("rank 0 on {}\nalone: the caller waits for each; in a row: {} at a time; GB/s of the latter\n", device,
             kInARow);
  fmt::print("{:<8}{:>7} {:<12}{:>12}{:>14}{:>16}{:>10}\n", "group", "ranks", "call", "bytes", "alone, ms",
             "in a row, ms", "GB/s");
  for (const auto& line : lines) {
    fmt::print("{:<8}{:>7} {:<12}{:>12}{:>14.4f}{:>16.4f}{:>10.3f}\n", line.group, line.ranks, line.alone.name,
               line.alone.bytes, line.alone.ms, line.in_a_row.ms, line.in_a_row.gb_per_s());
  }
}

void print_json(const std::vector<Line>& lines, const std::string& device, int ranks) {
  nlohmann::json out = {{"bench", "comm"}, {"device", device}, {"ranks", ranks}, {"results", nlohmann::json::array()}};
  for (const auto& line : lines) {
    out["results"].push_back({{"group", line.group},
                              {"group_size", line.ranks},
                              {"call", line.alone.name},
                              {"bytes", line.alone.bytes},
                              {"alone_ms", line.alone.ms},
                              {"in_a_row_ms", line.in_a_row.ms},
                              {"gb_per_s", line.in_a_row.gb_per_s()}});
  }
  fmt::print("{}\n", out.dump(2));
}

int run_on_device(const comm::Communicator& world, const Options& options) {
  std::optional<device::DeviceQueue> own;
  comm::UserBuffer buffer;
  comm::agree(world, "looking for a device", [&] {
    if (device::bound_device() < 0)
      throw Error(ExitCode::device, "no device here: nothing was measured over NCCL",
                  "run it where there is one for each rank; without --device MPI is measured");
    own.emplace();
    buffer = comm::UserBuffer(static_cast<std::size_t>(options.max_bytes));
  });
  if (world.size() == 1) {
    throw Error(ExitCode::input, "one rank sends nothing: nothing was measured over NCCL",
                "start two or more ranks, each on its own device")
        .as_agreed();
  }
  auto& queue = own->queue();
  std::vector<Line> lines;
  for (const auto& group : groups_of(world)) {
    comm::BlockCommunicator nccl(group.ranks, queue);
    buffer.register_with(nccl);
    for (std::int64_t bytes = options.min_bytes; bytes <= options.max_bytes; bytes *= 4) {
      lines.push_back(measure_sum(world, group, nccl, queue, buffer.f32(), "sum f32", bytes, options.seconds));
      if (bytes > kMostStatisticsBytes) continue;
      lines.push_back(measure_sum(world, group, nccl, queue, static_cast<double*>(buffer.data()), "sum f64", bytes,
                                  options.seconds));
    }
  }
  if (world.is_root()) {
    options.json ? print_json(lines, device::describe_device(), world.size())
                 : print_table(lines, device::describe_device());
  }
  return 0;
}

#endif

}  // namespace

Run add_bench_comm(CLI::App& command) {
  auto options = std::make_shared<Options>();
  const CLI::Range sizes(std::int64_t{4096}, std::int64_t{1} << 33);
  auto* min_bytes =
      command.add_option("--min-bytes", options->min_bytes, "Smallest buffer; the next ones are 4 times larger each")
          ->check(sizes);
  auto* max_bytes = command.add_option("--max-bytes", options->max_bytes, "Largest buffer");
  max_bytes->check(sizes);
  command.add_option("--seconds", options->seconds, "Time spent on each line")->check(CLI::Range(0.001, 60.0));
  command.add_flag("--device", options->device, "Sums over NCCL on the ranks' devices; default sizes 1 KiB to 64 MiB");
  command.add_flag("--json", options->json, "Print JSON");
  return [options, min_bytes, max_bytes](const comm::Communicator& world) {
    if (options->device) {
      if (min_bytes->count() == 0) options->min_bytes = 1024;
      if (max_bytes->count() == 0) options->max_bytes = std::int64_t{64} << 20;
    }
    if (options->max_bytes < options->min_bytes)
      throw Error(ExitCode::input,
                  fmt::format("--max-bytes {} is below --min-bytes {}", options->max_bytes, options->min_bytes))
          .as_agreed();
    if (options->device) return run_on_device(world, *options);
    const auto all = measure_all(world, *options);
    if (world.is_root()) options->json ? print_json(all, world.size()) : print_table(all, world.size());
    return 0;
  };
}

}  // namespace seer::app
