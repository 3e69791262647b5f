// SPDX-License-Identifier: Apache-2.0
#include "standing.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

namespace seer::watch {
namespace {

constexpr const char* kEnd = "end";  // the last line: the text is whole

/// Replaces blanks, which separate the words of a line.
std::string word(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return c <= ' '; }, '_');
  return text.empty() ? "-" : text;
}

std::optional<std::vector<int>> parse_ranges(const std::string& text) {
  std::vector<int> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    int first = 0, last = 0;
    char dash = 0;
    std::istringstream numbers(part);
    if (!(numbers >> first)) return std::nullopt;
    last = first;
    if (numbers >> dash && !(dash == '-' && numbers >> last)) return std::nullopt;
    if (first < 0 || last < first || last - first > 1 << 24) return std::nullopt;
    for (int r = first; r <= last; ++r) out.push_back(r);
  }
  return out;
}

std::string plural(const std::vector<int>& ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + ranges(ranks);
}

/// The last collective entered.
std::string collective(const Standing::Use& use) {
  return fmt::format("{} {} of \"{}\" (ranks {}, {} bytes)", use.kind, use.entered, use.name, ranges(use.members),
                     use.bytes);
}

/// A communicator in which some rank waits, and the state of its members.
struct Wait {
  const Standing::Use* use = nullptr;  ///< of the rank that is furthest ahead
  std::vector<int> inside = {};        ///< ranks that wait in that collective
  std::vector<int> behind = {};        ///< ranks that have not entered it
  std::vector<int> silent = {};        ///< ranks that did not answer
  std::string disagreement = "";       ///< not empty: ranks differ in kind or size under the same number
};

const Standing::Use* find(const std::optional<Standing>& answer, const Standing::Use& wanted) {
  if (!answer) return nullptr;
  const auto found = std::ranges::find_if(answer->uses, [&](const auto& use) { return use.same(wanted); });
  return found == answer->uses.end() ? nullptr : &*found;
}

Wait wait_in(const Standing::Use& furthest, int rank, const std::vector<std::optional<Standing>>& answers) {
  Wait wait{.use = &furthest};
  for (const int r : furthest.members) {
    const auto i = static_cast<std::size_t>(r);
    if (i >= answers.size()) continue;
    const auto* mine = find(answers[i], furthest);
    if (!answers[i]) {
      wait.silent.push_back(r);
    } else if (mine == nullptr || mine->entered < furthest.entered) {
      wait.behind.push_back(r);
    } else if (mine->open()) {
      wait.inside.push_back(r);
      if (mine->kind != furthest.kind || mine->bytes != furthest.bytes)
        wait.disagreement = fmt::format("rank {} is in {} of {} bytes, rank {} in {} of {} bytes", rank, furthest.kind,
                                        furthest.bytes, r, mine->kind, mine->bytes);
    }
  }
  return wait;
}

/// Returns one Wait for each communicator in which some rank waits.
std::vector<Wait> waits(const std::vector<std::optional<Standing>>& answers) {
  std::vector<Wait> out;
  for (const auto& answer : answers) {
    if (!answer) continue;
    for (const auto& use : answer->uses) {
      if (!use.open()) continue;
      const auto known = std::ranges::find_if(out, [&use](const Wait& wait) { return wait.use->same(use); });
      if (known == out.end())
        out.push_back(wait_in(use, answer->rank, answers));
      else if (use.entered > known->use->entered)
        *known = wait_in(use, answer->rank, answers);
    }
  }
  return out;
}

/// "ranks 0-1 wait"
std::string who_waits(const Wait& wait) {
  return plural(wait.inside) + (wait.inside.size() == 1 ? " waits" : " wait");
}

std::string standing_of(const std::vector<int>& ranks, const std::vector<std::optional<Standing>>& answers) {
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(ranks.size(), 4); ++i) {
    const auto& answer = answers[static_cast<std::size_t>(ranks[i])];
    if (!answer) continue;
    text += fmt::format("{}rank {} on {}: {}", text.empty() ? "" : "; ", ranks[i], answer->host, answer->place());
    if (const auto* use = answer->open_use()) text += ", inside " + collective(*use);
  }
  if (ranks.size() > 4) text += fmt::format("; and {} more", ranks.size() - 4);
  return text;
}

}  // namespace

std::string Standing::place() const {
  std::string text = update < 0 ? std::string("set-up") : fmt::format("update {}", update);
  if (!phase.empty()) text += ", " + phase;
  if (!reading.empty() && open_use() == nullptr) text += ", reading " + reading;
  return text;
}

const Standing::Use* Standing::open_use() const {
  const auto found = std::ranges::find_if(uses, &Use::open);
  return found == uses.end() ? nullptr : &*found;
}

std::string ranges(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    text += text.empty() ? "" : ",";
    text += last == i ? fmt::format("{}", ranks[i]) : fmt::format("{}-{}", ranks[i], ranks[last]);
    i = last + 1;
  }
  return text;
}

std::string to_text(const Standing& s) {
  std::string text = fmt::format(
      "question {}\nrank {}\nhost {}\nupdate {}\nphase {}\nreading {}\nsilent_s {:.1f}\n"
      "limit_s {:.1f}\n",
      word(s.question), s.rank, s.host, s.update, s.phase, s.reading, s.silent_s, s.limit_s);
  for (const auto& use : s.uses)
    text += fmt::format("communicator {} number {} ranks {} entered {} left {} last {} bytes {} since_s {:.1f}\n",
                        word(use.name), use.number, ranges(use.members), use.entered, use.left, word(use.kind),
                        use.bytes, use.since_s);
  return text + kEnd + "\n";
}

std::optional<Standing> parse_standing(std::string_view text) {
  Standing s;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::string key;
    in >> key;
    if (key == kEnd) return s;
    bool good = true;
    const auto text_of = [&](const char* name, std::string& value) {
      if (key == name) value = line.substr(std::min(key.size() + 1, line.size()));
    };
    const auto number_of = [&](const char* name, auto& value) {
      if (key == name) good = static_cast<bool>(in >> value);
    };
    text_of("question", s.question);
    number_of("rank", s.rank);
    text_of("host", s.host);
    number_of("update", s.update);
    text_of("phase", s.phase);
    text_of("reading", s.reading);
    number_of("silent_s", s.silent_s);
    number_of("limit_s", s.limit_s);
    if (key == "communicator") {
      Standing::Use use;
      std::string members, label;
      in >> use.name >> label >> use.number >> label >> members >> label >> use.entered >> label >> use.left >> label >>
          use.kind >> label >> use.bytes >> label >> use.since_s;
      const auto parsed = parse_ranges(members);
      good = static_cast<bool>(in) && parsed && !parsed->empty();
      if (good) use.members = *parsed;
      s.uses.push_back(std::move(use));
    }
    if (!good) return std::nullopt;
  }
  return std::nullopt;
}

Verdict judge(const std::vector<std::optional<Standing>>& answers, const std::vector<std::string>& hosts) {
  std::vector<int> missing, answered, busy;
  for (int r = 0; r < static_cast<int>(answers.size()); ++r) {
    const auto& answer = answers[static_cast<std::size_t>(r)];
    (answer ? answered : missing).push_back(r);
    if (answer && !answer->over_limit()) busy.push_back(r);
  }
  const auto all = waits(answers);
  if (!missing.empty()) {
    const auto host = hosts.at(static_cast<std::size_t>(missing[0]));
    std::string what = fmt::format("{} on {}{} {} not answer: stopped, dead, or the node is lost", plural(missing),
                                   host, missing.size() == 1 ? "" : " and others", missing.size() == 1 ? "does" : "do");
    const auto held_up = std::ranges::find_if(all, [](const Wait& wait) { return !wait.silent.empty(); });
    if (held_up != all.end()) what += "; " + who_waits(*held_up) + " in " + collective(*held_up->use);
    return {true, what + " (" + standing_of(answered, answers) + ")"};
  }
  if (!busy.empty())
    return {false, fmt::format("{} slow, still at work: {}", busy.size() == 1 ? "one rank is" : "some ranks are",
                               standing_of(busy, answers))};
  // Find who holds up the others: prefer a rank that waits nowhere itself over one that is held up in turn.
  const auto waits_nowhere = [&](int r) { return answers[static_cast<std::size_t>(r)]->open_use() == nullptr; };
  const Wait* found = nullptr;
  for (const auto& wait : all) {
    if (wait.behind.empty()) continue;
    const bool root = std::ranges::any_of(wait.behind, waits_nowhere);
    if (found == nullptr || root) found = &wait;
    if (root) break;
  }
  if (found != nullptr)
    return {true, fmt::format("{} {} not entered {} that {} for ({})", plural(found->behind),
                              found->behind.size() == 1 ? "has" : "have", collective(*found->use), who_waits(*found),
                              standing_of(found->behind, answers))};
  for (const auto& wait : all)
    if (!wait.disagreement.empty())
      return {true, fmt::format("ranks disagree on collective {} of \"{}\": {}", wait.use->entered, wait.use->name,
                                wait.disagreement)};
  if (!all.empty())
    return {true, fmt::format("{} in {}, all have entered it, and it does not end ({})", who_waits(all[0]),
                              collective(*all[0].use), standing_of(answered, answers))};
  return {true, fmt::format("no rank waits in a collective, and no rank makes progress ({})",
                            standing_of(answered, answers))};
}

}  // namespace seer::watch
