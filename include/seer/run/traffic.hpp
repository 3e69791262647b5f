// SPDX-License-Identifier: Apache-2.0
// Counts the messages of a run's collectives, separately for updates, set-up and checkpoints. Calls and payload are as
// comm::Traffic counts them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::run {

class TrafficLedger {
 public:
  enum class Use : std::uint8_t { set_up, update, checkpoint };
  struct Row {
    Use use;
    comm::Traffic traffic;
  };

  /// `counters` returns the counts of all communicators so far, with no work in progress (Learner::traffic).
  explicit TrafficLedger(std::function<std::vector<comm::Traffic>()> counters) : counters_(std::move(counters)) {}

  /// Attributes all counts since the last call to `use`.
  void close(Use use);
  /// Sums by use, communicator and kind, in this order.
  std::vector<Row> rows() const;

 private:
  using Counter = std::pair<std::string, std::string>;  ///< communicator, kind
  std::function<std::vector<comm::Traffic>()> counters_;
  std::map<Counter, comm::Traffic> seen_;
  std::map<std::pair<Use, Counter>, comm::Traffic> sums_;
};

/// The table beside that of the phases: calls and MiB per update. "" if nothing was sent.
std::string to_table(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates);

/// traffic.json (docs/formats.md). `logged`: number of logged updates; their messages are longer.
std::string to_json(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates, std::int64_t logged, int ranks);

}  // namespace seer::run
