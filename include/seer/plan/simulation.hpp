// SPDX-License-Identifier: Apache-2.0
// A simulated clock: the time that kernels, products and collectives of a planned update take on a machine.
//
// A kernel takes its bytes over the memory's rate. A product on a device takes the longer of its arithmetic, at the
// achieved share of the peak, and its bytes; on the host it takes its arithmetic plus one pass over its weights. Both
// pay the launch. Collectives follow the alpha-beta model: first inside a node, then between nodes,
// where each rank sends 1 / ranks-of-the-node of the bytes (as in a ring); the latency is a tree's. On a device,
// reduce-scatter and all-gather have a ring's latency.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "seer/config/machine.hpp"
#include "seer/device/ledger.hpp"

namespace seer::plan {

class Simulation final : public device::Ledger {
 public:
  /// `ranks_on_node`: if more than the machine has, they share its cores, links and memory.
  Simulation(const config::Machine& machine, int ranks_on_node);

  void work(const device::Work& work) override;
  void message(const device::Message& message) override;
  void begin_aside() override;
  std::uint64_t end_aside() override;
  void wait(std::uint64_t ticket) override;
  double now_ms() const override { return 1e3 * now_s_; }

  double seconds(const device::Work& work) const;
  double seconds(const device::Message& message) const;
  /// Lower limit: the arithmetic at the full peak or the bytes at the memory's full rate, whichever is longer.
  double roof_s(const device::Work& work) const;

  struct Totals {
    double product_s = 0, stream_s = 0;  ///< on the main line
    double exposed_s = 0, hidden_s = 0;  ///< communication that the main line waits for, and that it does not
    double straggle_s = 0;               ///< waiting for slower ranks at collectives; not on the clock
    double flops = 0;                    ///< of all work
    auto sums() { return std::array{&product_s, &stream_s, &exposed_s, &hidden_s, &straggle_s, &flops}; }
  };
  struct Traffic {
    std::string name;
    device::Message::Kind kind = device::Message::Kind::all_reduce;
    int ranks = 1;
    double calls = 0, bytes = 0, seconds = 0;
    auto sums() { return std::array{&calls, &bytes, &seconds}; }
    auto key() const { return std::tie(name, kind, ranks); }
  };
  /// All work of one kind in one direction and precision, on the main line and beside it.
  struct KindTotals {
    device::Work::Kind kind = device::Work::Kind::stream;
    device::Work::Direction direction = device::Work::Direction::forward;
    DType dtype = DType::f32;
    double calls = 0, flops = 0, bytes = 0, seconds = 0;
    double roof_s = 0;  ///< sum of roof_s(); no launches
    auto sums() { return std::array{&calls, &flops, &bytes, &seconds, &roof_s}; }
    auto key() const { return std::tie(kind, direction, dtype); }
  };
  const Totals& totals() const { return totals_; }
  const std::vector<KindTotals>& by_kind() const { return by_kind_; }
  const std::vector<Traffic>& traffic() const { return traffic_; }
  /// Resets totals, kinds, traffic and elapsed_s().
  void restart();
  double elapsed_s() const { return now_s_ - began_s_; }

 private:
  double share(const device::Work& work) const;
  /// Seconds of a memory-bound kernel.
  double pass_s(double bytes, DType type) const;

  config::Machine machine_;
  double crowding_ = 1;  ///< ranks that share the resources meant for one
  double now_s_ = 0, began_s_ = 0, aside_s_ = 0, aside_began_s_ = 0;
  bool aside_ = false;
  std::vector<double> finished_s_;  ///< indexed by ticket - 1
  Totals totals_;
  std::vector<KindTotals> by_kind_;
  std::vector<Traffic> traffic_;
};

const char* name_of(device::Message::Kind kind);
const char* name_of(device::Work::Kind kind);
const char* name_of(device::Work::Direction direction);
/// The precision.compute that works in this type.
const char* precision_of(DType type);

/// A rate's shares of the peak, in the order of device::Work::Direction.
inline constexpr std::array kShares = {&config::MachineRate::forward, &config::MachineRate::backward_data,
                                       &config::MachineRate::backward_weights};

/// Adds the sums of `from` (Totals, Traffic or KindTotals), `times` times.
template <class Sums>
void add(Sums& to, Sums from, double times = 1) {
  const auto into = to.sums(), added = from.sums();
  for (std::size_t i = 0; i < into.size(); ++i) *into[i] += times * *added[i];
}

/// Adds the sums to the row with the same key; if there is none, to a new row.
template <class Row>
void add_row(std::vector<Row>& rows, const Row& row, double times = 1) {
  auto found = std::ranges::find(rows, row.key(), &Row::key);
  if (found == rows.end()) {
    found = rows.insert(rows.end(), row);
    for (double* sum : found->sums()) *sum = 0;
  }
  add(*found, row, times);
}

}  // namespace seer::plan
