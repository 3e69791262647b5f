// SPDX-License-Identifier: Apache-2.0
// Finds the candidates of pack that a label file and a list name.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "labels.hpp"
#include "pack_parts.hpp"
#include "packed.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"

namespace seer::data {
namespace {

constexpr std::size_t kShown = 5;  // examples in a message

std::string examples(std::vector<std::string> shown, std::size_t count) {
  if (count > shown.size()) shown.emplace_back("...");
  return fmt::format("{}", fmt::join(shown, ", "));
}

/// A path from the root of the sources' paths, "/source/folder/1.png", and where its part in the source begins.
std::pair<std::string, std::size_t> place_of(const Candidate& c) {
  std::string full;
  const auto add = [&](std::string_view text) {
    for (const auto part : parts_of(text))
      if (part != "/") (full += '/') += part;
  };
  // The path ends like the name, but for a ':' after an archive.
  auto before = c.path.substr(0, c.path.size() - std::min(c.path.size(), c.name.size()));
  if (before.ends_with(':')) before.pop_back();
  add(before);
  const auto inner = full.size();
  add(c.name);
  return {full, inner};
}

/// The paths of a file, and the candidate that each means: the one that it fits best.
class Claims {
 public:
  explicit Claims(LabelTable table) : table_(std::move(table)), states_(table_.paths.size()) {}

  const LabelTable& table() const { return table_; }

  void offer(const Candidate& c) {
    owned_.push_back(-1);
    const auto [full, inner] = place_of(c);
    const auto found = table_.paths.find(full, inner);
    if (found.fit == PathIndex::Fit::none) return;
    auto& state = states_[found.path];
    state.seen = true;
    if (!c.refusal.empty() || found.fit < state.fit) return;
    if (found.fit == state.fit) {
      state.clash = true;
      if (others_.size() < 1000) others_.emplace(found.path, c.path);
      return;
    }
    if (state.fit != PathIndex::Fit::none) owned_[state.owner] = -1;
    others_.erase(found.path);
    state = {static_cast<std::uint32_t>(owned_.size()) - 1, found.fit, true, false};
    owned_.back() = static_cast<std::int32_t>(found.path);
  }

  /// The path that means this candidate, or -1.
  std::int32_t of(std::size_t candidate) const { return owned_[candidate]; }

  /// To be called after all offers. If some paths fit by their folders, those that fit by their names alone mean other
  /// files. Error(file) for paths that mean several files or, unless `skip_missing`, none.
  void settle(bool skip_missing) {
    using Fit = PathIndex::Fit;
    const bool folders = std::ranges::any_of(states_, [](const State& s) { return s.fit > Fit::same_name; });
    bool names = false;
    for (auto& state : states_) {
      if (state.fit != Fit::same_name) continue;
      names = true;
      if (!folders) continue;
      owned_[state.owner] = -1;
      state = {};
    }
    if (names && !folders)
      log::warn(fmt::format("{}: its folders are not in the sources; images are found by their names", table_.file));
    want_none([](const State& s) { return s.clash; }, "mean more than one file of the sources", "write longer paths",
              [this](std::size_t i) { return others_.contains(i) ? ", one is " + utf8_name(others_.at(i)) : ""; });
    if (skip_missing) return;
    want_none([](const State& s) { return !s.seen; }, "are not in the sources",
              "give the folder where these paths begin as the source, or use --missing skip to ignore them",
              [](std::size_t) { return ""; });
  }

 private:
  struct State {
    std::uint32_t owner = 0;
    PathIndex::Fit fit = PathIndex::Fit::none;
    bool seen = false, clash = false;
  };

  void want_none(const auto& is_bad, const char* what, const char* remedy, const auto& more) const {
    std::vector<std::size_t> bad;
    for (std::size_t i = 0; i < states_.size(); ++i)
      if (is_bad(states_[i])) bad.push_back(i);
    if (bad.empty()) return;
    std::ranges::stable_sort(bad, {}, [this](std::size_t i) { return table_.paths.line(i); });
    std::vector<std::string> shown;
    for (std::size_t n = 0; n < std::min(kShown, bad.size()); ++n)
      shown.push_back(utf8_name(table_.place(bad[n])) + more(bad[n]));
    fail(fmt::format("{} of {} paths {}: {}", bad.size(), states_.size(), what, examples(shown, bad.size())), remedy);
  }

  LabelTable table_;
  std::vector<State> states_;
  std::map<std::size_t, std::string> others_;  // path -> a further file that it means
  std::vector<std::int32_t> owned_;            // per candidate
};

Assignment assign(const SourceList& sources, const PackOptions& options) {
  Assignment out;
  ClassNames fixed;
  if (!options.classes_file.empty()) fixed = ClassNames(options.classes_file);
  out.classes = fixed.names();
  std::optional<Claims> labels, list;
  if (!options.list_file.empty()) list.emplace(read_path_list(options.list_file));
  if (!options.label_file.empty()) {
    labels.emplace(read_labels(options.label_file, std::move(fixed)));
    const auto& table = labels->table();
    out.of_file = true;
    out.several = table.several;
    out.classes = table.classes;
    if (table.united > 0)
      log::warn(fmt::format("{}: {} paths stand on several lines with different classes, and have all of them",
                            table.file, table.united));
  }
  if (!labels && !list) return out;

  std::vector<bool> is_image;
  const auto stream = open_stream(sources, options);
  for (Candidate c; stream->next(c);) {
    is_image.push_back(c.refusal.empty() && is_image_name(c.name));
    if (labels) labels->offer(c);
    if (list) list->offer(c);
  }
  if (list) list->settle(options.skip_missing);
  if (labels) labels->settle(options.skip_missing);
  std::size_t unlabelled = 0, taken = 0;
  for (std::size_t i = 0; i < is_image.size(); ++i) {
    auto& record = out.records.emplace_back(labels ? labels->of(i) : Assignment::kNoLabel);
    if (record >= 0 && !out.several && labels->table().targets.of(static_cast<std::size_t>(record)).empty())
      record = Assignment::kNoLabel;
    const bool no_label = labels && record < 0 && is_image[i];
    if (list && list->of(i) < 0) {
      record = Assignment::kLeftOut;
      ++out.off_list;
    } else if (no_label && options.unlabelled == Unlabelled::skip) {
      record = Assignment::kLeftOut;
      ++out.without_label;
    } else {
      taken += list || record >= 0 || is_image[i] ? 1 : 0;
      if (no_label && options.unlabelled == Unlabelled::refuse) ++unlabelled;
    }
  }
  if (unlabelled > 0) {
    std::vector<std::string> shown;
    const auto again = open_stream(sources, options);
    Candidate c;
    for (std::size_t i = 0; again->next(c) && shown.size() < kShown; ++i)
      if (is_image[i] && out.records[i] == Assignment::kNoLabel) shown.push_back(utf8_name(c.path));
    fail(fmt::format("{} gives {} images no label: {}", labels->table().file, unlabelled, examples(shown, unlabelled)),
         "complete it, or use --unlabelled keep or --unlabelled skip");
  }
  if (taken == 0 && !is_image.empty())
    fail(fmt::format("none of {} files of the sources is named by {}", is_image.size(),
                     list ? list->table().file : labels->table().file));
  if (labels) {
    out.targets = labels->table().targets;
    if (!labels->table().ignored.values.empty()) out.ignored = labels->table().ignored;
  }
  return out;
}

}  // namespace

Assignment assign_labels(const SourceList& sources, const PackOptions& options, const comm::Communicator& comm) {
  Assignment out;
  comm::agree(comm, "reading labels", [&] {
    if (comm.is_root()) out = assign(sources, options);
  });
  share(comm, out.of_file, out.several, out.classes, out.targets.begins, out.targets.values, out.ignored.begins,
        out.ignored.values, out.records, out.off_list, out.without_label);
  return out;
}

}  // namespace seer::data
