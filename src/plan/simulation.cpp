// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/simulation.hpp"

#include <fmt/format.h>

#include <cmath>

#include "seer/base/error.hpp"

namespace seer::plan {

using device::Message;
using device::Work;

const char* name_of(Work::Kind kind) {
  constexpr const char* names[] = {"stream", "pointwise", "grouped", "dense", "gemm"};
  return names[static_cast<std::size_t>(kind)];
}

const char* name_of(Message::Kind kind) {
  constexpr const char* names[] = {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "barrier"};
  return names[static_cast<std::size_t>(kind)];
}

const char* name_of(Work::Direction direction) {
  constexpr const char* names[] = {"forward", "backward_data", "backward_weights"};
  return names[static_cast<std::size_t>(direction)];
}

const char* precision_of(DType type) {
  constexpr const char* names[] = {"fp32", "bf16", "fp16_o1", "bytes"};
  return names[static_cast<std::size_t>(type)];
}

Simulation::Simulation(const config::Machine& machine, int ranks_on_node)
    : machine_(machine),
      crowding_(std::max(1.0, static_cast<double>(ranks_on_node) / static_cast<double>(machine.ranks_per_node))) {}

/// Interpolates between the two nearest widths, linearly in log(width).
double Simulation::share(const Work& work) const {
  const config::MachineRate *below = nullptr, *above = nullptr;
  const char* precision = precision_of(work.dtype);
  const auto width = static_cast<double>(work.width);
  for (const auto& rate : machine_.rates) {
    if (rate.precision != precision || rate.kind != name_of(work.kind)) continue;
    if (rate.width <= width && (below == nullptr || rate.width > below->width)) below = &rate;
    if (rate.width >= width && (above == nullptr || rate.width < above->width)) above = &rate;
  }
  if (below == nullptr && above == nullptr) {
    throw Error(ExitCode::input,
                fmt::format("the machine file of \"{}\" has no [[rates]] with kind = \"{}\", precision = \"{}\"",
                            machine_.name, name_of(work.kind), precision),
                "add them (`seer plan --calibrate FILE` measures those of the machine it runs on), or use another "
                "precision.compute");
  }
  const auto of_direction = kShares[static_cast<std::size_t>(work.direction)];
  if (below == nullptr) return above->*of_direction;
  if (above == nullptr || above->width == below->width) return below->*of_direction;
  const double t = std::log(width / below->width) / std::log(above->width / below->width);
  return (1 - t) * below->*of_direction + t * above->*of_direction;
}

double Simulation::pass_s(double bytes, DType type) const {
  double rate = machine_.bytes_per_s * machine_.efficiency;
  if (bytes < machine_.cache_bytes) rate *= machine_.cache_speedup;
  if (dtype_bytes(type) == 2) rate *= machine_.half_speedup;
  return bytes / rate;
}

double Simulation::seconds(const Work& work) const {
  double busy = pass_s(work.bytes, work.dtype);
  if (work.flops > 0) {
    const double arithmetic = work.flops / (machine_.peak(precision_of(work.dtype)) * share(work));
    // The host's rates are measured on whole layers, activations included; the pass over the weights matters more the
    // fewer images there are.
    busy = machine_.backend == "host" ? arithmetic + pass_s(work.weight_bytes, DType::f32) : std::max(busy, arithmetic);
  }
  return crowding_ * (machine_.launch_s + busy);
}

double Simulation::roof_s(const Work& work) const {
  const double arithmetic = work.flops > 0 ? work.flops / machine_.peak(precision_of(work.dtype)) : 0;
  return std::max(arithmetic, work.bytes / machine_.bytes_per_s);
}

double Simulation::seconds(const Message& message) const {
  const double in_node = std::max(1, message.node_ranks);
  const double nodes = std::max(1.0, std::ceil(message.ranks / in_node));
  double rounds = 1, volume = 1;
  if (message.kind == Message::Kind::all_reduce) rounds = volume = 2;  // a reduce-scatter and an all-gather
  if (message.kind == Message::Kind::reduce_scatter) volume = 1 / machine_.reduce_scatter_speedup;
  if (message.kind == Message::Kind::barrier) {
    rounds = 2;
    volume = 0;
  }
  double latency = rounds * (std::ceil(std::log2(in_node)) * machine_.node.latency_s +
                             std::ceil(std::log2(nodes)) * machine_.cluster.latency_s);
  const bool scattered = message.kind == Message::Kind::reduce_scatter || message.kind == Message::Kind::all_gather;
  if (scattered && machine_.backend == "device")  // NCCL has only rings for these
    latency = (message.ranks - nodes) * machine_.node.latency_s + (nodes - 1) * machine_.cluster.latency_s;
  const double inside = volume * (in_node - 1) / in_node * message.bytes / machine_.node.bytes_per_s;
  const double between = volume * (nodes - 1) / nodes * message.bytes / in_node / machine_.cluster.bytes_per_s;
  return crowding_ * (latency + inside + between);
}

void Simulation::work(const Work& work) {
  const double s = seconds(work);
  totals_.flops += work.flops;
  add_row(by_kind_, KindTotals{.kind = work.kind,
                               .direction = work.direction,
                               .dtype = work.dtype,
                               .calls = 1,
                               .flops = work.flops,
                               .bytes = work.bytes,
                               .seconds = s,
                               .roof_s = roof_s(work)});
  (aside_ ? aside_s_ : now_s_) += s;
  if (!aside_) (work.flops > 0 ? totals_.product_s : totals_.stream_s) += s;
}

void Simulation::message(const Message& message) {
  if (message.ranks < 2) return;
  const double s = seconds(message);
  add_row(traffic_, Traffic{message.name, message.kind, message.ranks, 1, message.bytes, s});
  (aside_ ? aside_s_ : now_s_) += s;
  if (aside_) return;
  totals_.exposed_s += s;
  totals_.straggle_s += crowding_ * machine_.meeting_s;
}

void Simulation::begin_aside() {
  aside_ = true;
  aside_began_s_ = aside_s_ = std::max(aside_s_, now_s_);
}

std::uint64_t Simulation::end_aside() {
  aside_ = false;
  // The part that cannot overlap takes time from the computation.
  const double took = aside_s_ - aside_began_s_, stolen = (1 - machine_.overlap) * took;
  now_s_ += stolen;
  totals_.exposed_s += stolen;
  totals_.hidden_s += took - stolen;
  finished_s_.push_back(aside_s_);
  return finished_s_.size();
}

void Simulation::wait(std::uint64_t ticket) {
  if (ticket == 0) return;
  const double late = finished_s_.at(ticket - 1) - now_s_;
  if (late <= 0) return;
  now_s_ += late;
  totals_.exposed_s += late;
  totals_.hidden_s -= late;
}

void Simulation::restart() {
  began_s_ = now_s_;
  totals_ = {};
  by_kind_.clear();
  traffic_.clear();
}

}  // namespace seer::plan
