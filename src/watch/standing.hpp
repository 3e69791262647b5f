// SPDX-License-Identifier: Apache-2.0
// The state of one rank when a hang is suspected, as text in a file that the other ranks read, and the verdict over the
// states of all ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace seer::watch {

struct Standing {
  /// A communicator and the last collective entered in it. Equal (name, number, members) on two ranks mean the same
  /// communicator.
  struct Use {
    std::string name = "part";
    int number = 0;
    std::vector<int> members;
    std::int64_t left = 0, entered = 0, bytes = 0;
    std::string kind = "?";
    double since_s = 0;  ///< since it was entered
    bool open() const { return entered > left; }
    bool same(const Use& other) const {
      return name == other.name && number == other.number && members == other.members;
    }
  };
  std::string question;  ///< the question that this answers
  int rank = 0;
  std::string host, phase, reading;
  std::int64_t update = -1;
  double silent_s = 0, limit_s = 0;  ///< limit_s: of its current stage; 0: none
  std::vector<Use> uses;

  bool over_limit() const { return limit_s > 0 && silent_s >= limit_s; }
  /// "update 17, data wait, reading shards/a.h5", or "set-up"
  std::string place() const;
  const Use* open_use() const;
};

/// Lines of "key value"; parse_standing() skips unknown keys.
std::string to_text(const Standing& standing);
/// Returns nothing if the text is incomplete or malformed.
std::optional<Standing> parse_standing(std::string_view text);

/// {0, 1, 2, 5} -> "0-2,5"
std::string ranges(const std::vector<int>& ranks);

struct Verdict {
  bool hang = false;
  std::string what;  ///< hang: which ranks hold up which, and where; else which ranks are slow
};
/// `answers` by rank, empty for a rank that did not answer in time; `hosts` by rank. It is a hang if some rank does not
/// answer, or all are over their limits.
Verdict judge(const std::vector<std::optional<Standing>>& answers, const std::vector<std::string>& hosts);

}  // namespace seer::watch
