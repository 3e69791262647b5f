// SPDX-License-Identifier: Apache-2.0
// `seer bench comm --device`: sums over NCCL on the communicators that a run can have: all ranks; the ranks of a node;
// the ranks with the same place on all nodes. Times each call alone, as BatchNorm waits for it, and many calls in a
// row, as in a bucket of gradients.
#include "bench_comm.hpp"
#include "seer/base/error.hpp"

#if defined(SEER_CUDA)
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "seer/comm/device_communicator.hpp"
#include "seer/comm/user_buffer.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#endif

namespace seer::app {

#if !defined(SEER_CUDA)

int bench_comm_device(const comm::Communicator&, const CommOptions&) {
  throw Error(ExitCode::device, "this seer knows no devices: nothing was measured over NCCL",
              "build it with -DSEER_CUDA=ON; without --device MPI is measured")
      .as_agreed();
}

#else

namespace {

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
Line measure_sum(const comm::Communicator& world, const Group& group, comm::DeviceCommunicator& nccl,
                 device::Queue& queue, Values* values, const std::string& name, std::int64_t bytes, double seconds) {
  const auto count = static_cast<std::size_t>(bytes) / sizeof(Values);
  const auto alone = measure(world, name, bytes, seconds, [&] {
    nccl.all_reduce(queue, values, count);
    queue.wait();
  });
  auto in_a_row = measure(world, name, bytes, seconds, [&] {
    for (int i = 0; i < kInARow; ++i) nccl.all_reduce(queue, values, count);
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

}  // namespace

int bench_comm_device(const comm::Communicator& world, const CommOptions& options) {
  std::optional<device::DeviceQueue> own;
  comm::UserBuffer buffer;
  comm::agree(world, "looking for a device", [&] {
    if (device::bound_device() < 0) {
      throw Error(ExitCode::device, "no device here: nothing was measured over NCCL",
                  "run it where there is one for each rank; without --device MPI is measured");
    }
    own.emplace();
    buffer = comm::UserBuffer(static_cast<std::size_t>(options.max_bytes));
  });
  if (world.size() == 1) {
    throw Error(ExitCode::input, "one rank alone sends nothing: nothing was measured over NCCL",
                "start two ranks or more, on a device each")
        .as_agreed();
  }
  auto& queue = own->queue();
  std::vector<Line> lines;
  for (const auto& group : groups_of(world)) {
    comm::DeviceCommunicator nccl(group.ranks);
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

}  // namespace seer::app
