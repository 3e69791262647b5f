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
#include <cstdint>
#include <string>
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
    double meetings_s = 0;               ///< waiting for slower ranks at collectives; not on the clock
    double flops = 0, bytes = 0;         ///< of all work
    std::int64_t kernels = 0;
  };
  struct Traffic {
    std::string name;
    device::Message::Kind kind = device::Message::Kind::all_reduce;
    int ranks = 1;
    double calls = 0, bytes = 0, seconds = 0;
    bool counts_same(const Traffic& o) const { return name == o.name && kind == o.kind && ranks == o.ranks; }
  };
  /// All work of one kind in one direction and precision, on the main line and beside it.
  struct KindTotals {
    device::Work::Kind kind = device::Work::Kind::stream;
    device::Work::Direction direction = device::Work::Direction::forward;
    DType dtype = DType::f32;
    double calls = 0, flops = 0, bytes = 0, seconds = 0;
    double roof_s = 0;  ///< sum of roof_s(); no launches
    bool counts_same(const KindTotals& o) const {
      return kind == o.kind && direction == o.direction && dtype == o.dtype;
    }
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

/// Returns the row with the same key fields as `key`; if there is none, appends `key`, whose counts are zero.
template <class Row>
Row& row_of(std::vector<Row>& rows, const Row& key) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.counts_same(key); });
  return found != rows.end() ? *found : rows.emplace_back(key);
}

}  // namespace seer::plan
