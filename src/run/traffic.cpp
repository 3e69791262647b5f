// SPDX-License-Identifier: Apache-2.0
#include "seer/run/traffic.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace seer::run {
namespace {

const char* name_of(TrafficLedger::Use use) {
  constexpr const char* names[] = {"set-up", "update", "checkpoint"};
  return names[static_cast<std::size_t>(use)];
}

double mean(std::int64_t sum, std::int64_t updates) {
  return static_cast<double>(sum) / static_cast<double>(std::max<std::int64_t>(updates, 1));
}

}  // namespace

void TrafficLedger::close(Use use) {
  for (const auto& now : counters_()) {
    const Counter counter{now.name, now.kind};
    auto& before = seen_[counter];
    if (now.calls > before.calls) {
      auto& sum = sums_[{use, counter}];
      const auto calls = sum.calls + now.calls - before.calls, bytes = sum.bytes + now.bytes - before.bytes;
      sum = now;
      sum.calls = calls;
      sum.bytes = bytes;
    }
    before = now;
  }
}

std::vector<TrafficLedger::Row> TrafficLedger::rows() const {
  std::vector<Row> out;
  for (const auto& [key, sum] : sums_) out.push_back({key.first, sum});
  return out;
}

std::string to_table(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates) {
  std::string text;
  for (const auto& [use, t] : rows) {
    if (use != TrafficLedger::Use::update) continue;
    if (text.empty()) {
      text = fmt::format("messages per update, mean of {} updates on rank 0\n  {:<12}{:<16}{:>7}{:>10}{:>12}", updates,
                         "among", "kind", "ranks", "calls", "MiB");
    }
    text += fmt::format("\n  {:<12}{:<16}{:>7}{:>10.2f}{:>12.3f}", t.name, t.kind, t.group_size, mean(t.calls, updates),
                        mean(t.bytes, updates) / (1 << 20));
  }
  return text;
}

std::string to_json(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates, std::int64_t logged, int ranks) {
  nlohmann::ordered_json out = {
      {"ranks", ranks}, {"updates", updates}, {"logged_updates", logged}, {"traffic", nlohmann::ordered_json::array()}};
  for (const auto& [use, t] : rows) {
    nlohmann::ordered_json row = {{"use", name_of(use)},        {"name", t.name},   {"kind", t.kind},
                                  {"group_size", t.group_size}, {"calls", t.calls}, {"bytes", t.bytes}};
    if (use == TrafficLedger::Use::update) {
      row["calls_per_update"] = mean(t.calls, updates);
      row["bytes_per_update"] = mean(t.bytes, updates);
    }
    out["traffic"].push_back(row);
  }
  return out.dump(2) + "\n";
}

}  // namespace seer::run
