// SPDX-License-Identifier: Apache-2.0
// Where one rank stands when a hang is suspected, as text in a file that the others read, and the verdict over those of
// all ranks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace seer::watch {

struct Standing {
  /// A communicator and the last collective entered in it. Equal (name, number, members) on two ranks: the same one.
  struct Use {
    std::string name = "part";
    int number = 0;
    std::vector<int> members;
    std::int64_t entered = 0, left = 0, bytes = 0;
    std::string kind = "?";
    double since_s = 0;  ///< since it was entered
    bool open() const { return entered > left; }
    bool same(const Use& other) const {
      return name == other.name && number == other.number && members == other.members;
    }
  };
  std::string question;  ///< which suspicion this answers
  int rank = 0;
  std::string host, phase, reading;
  std::int64_t update = -1;
  double silent_s = 0, limit_s = 0;  ///< limit of what it is doing; 0: none
  std::vector<Use> uses;

  bool over_limit() const { return limit_s > 0 && silent_s >= limit_s; }
  /// "update 17, data wait, reading shards/a.h5", or "set-up"
  std::string place() const;
  const Use* open_use() const;
};

/// Lines of "key value"; what parse_standing() does not know it skips.
std::string to_text(const Standing& standing);
/// Nothing where the text is not whole.
std::optional<Standing> parse_standing(std::string_view text);

/// {0, 1, 2, 5} -> "0-2,5"
std::string ranges(const std::vector<int>& ranks);

struct Verdict {
  bool hang = false;
  std::string what;  ///< of a hang: which ranks hold up which, and where; else who is slow
};
/// `answers` by rank: nothing of a rank that did not answer in time; `hosts` by rank. A hang: some rank does not
/// answer, or all are over their limits.
Verdict judge(const std::vector<std::optional<Standing>>& answers, const std::vector<std::string>& hosts);

}  // namespace seer::watch
