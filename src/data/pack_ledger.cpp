// SPDX-License-Identifier: Apache-2.0
#include "pack_ledger.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>

#include "seer/base/log.hpp"

namespace seer::data {

void fields(Packed& bytes, Verdict& v) {
  bytes(v.index, v.bytes, v.checksum, v.width, v.height, v.of_archive, v.class_name, v.path, v.reason);
}

void Ledger::add(const std::vector<std::string>& parts, bool reject_duplicates, bool keep_rejects) {
  std::vector<Verdict> verdicts;
  for (const auto& part : parts)
    for (Packed in(part); !in.at_end();) in(verdicts.emplace_back());
  std::ranges::sort(verdicts, {}, &Verdict::index);
  for (auto& v : verdicts) {
    ++result.files;
    if (v.reason.empty() && reject_duplicates && !seen.insert({v.checksum, v.bytes}).second)
      v.reason = "duplicate: the same bytes as an earlier file";
    if (!v.reason.empty()) {
      ++result.rejected[v.reason.substr(0, v.reason.find(':'))];
      if (keep_rejects) rejects.push_back({v.path, v.reason, v.bytes});
      continue;
    }
    const auto next = static_cast<std::int32_t>(labels.size());
    const auto label = assignment.of_file ? assignment.record(v.index)
                                          : labels.try_emplace({v.class_name, v.of_archive}, next).first->second;
    accepted.push_back({v.index, v.bytes, v.checksum, v.width, v.height, label, v.of_archive});
  }
}

void Ledger::number_classes(bool archives_are_classes, const std::string& classes_file) {
  auto& classes = result.classes = assignment.classes;
  if (assignment.of_file) {
    for (auto& a : accepted)
      if (!assignment.several && a.label >= 0)
        a.label = assignment.targets.of(static_cast<std::size_t>(a.label)).front();
    return;
  }
  std::map<std::string_view, std::size_t> fixed;
  for (const auto& name : assignment.classes) fixed.emplace(name, fixed.size());
  std::vector<std::int32_t> final_label(labels.size(), -1);
  for (const auto& [key, n] : labels) {  // sorted by name
    const auto& [name, of_archive] = key;
    if (name.empty() || (of_archive && !archives_are_classes)) continue;
    const auto at = fixed.find(name);
    if (at == fixed.end() && !fixed.empty())
      fail(fmt::format("the class \"{}\", the name of a folder, is none of the {} in {}", name, classes.size(),
                       classes_file),
           "add it there, or leave the folder out");
    if (fixed.empty() && (classes.empty() || classes.back() != name)) classes.push_back(name);
    final_label[static_cast<std::size_t>(n)] =
        static_cast<std::int32_t>(fixed.empty() ? classes.size() - 1 : at->second);
  }
  for (auto& a : accepted) {
    a.label = final_label[static_cast<std::size_t>(a.label)];
    a.of_archive = a.of_archive && archives_are_classes;
  }
}

ShardEntry Ledger::entry(const Accepted& a) const {
  ShardEntry out{a.bytes, a.checksum, a.width, a.height, assignment.several ? -1 : a.label};
  if (!assignment.several || a.label < 0) return out;
  const auto copy = [&](const Targets& from, std::vector<std::int32_t>& to) {
    if (from.images() == 0) return;
    const auto of = from.of(static_cast<std::size_t>(a.label));
    to.assign(of.begin(), of.end());
  };
  copy(assignment.targets, out.targets);
  copy(assignment.ignored, out.ignored);
  return out;
}

Targets Ledger::classes() const {
  Targets out;
  for (const auto& a : accepted) {
    const auto e = entry(a);
    out.add(assignment.several ? std::span(e.targets) : std::span(&e.label, e.label < 0 ? 0U : 1U));
  }
  return out;
}

void Ledger::choose(const SubsetChoice& choice) {
  if (choice.takes_all()) return;
  const auto chosen =
      choose_subset(classes(), static_cast<std::int64_t>(result.classes.size()), choice, result.classes);
  for (std::size_t i = 0; i < chosen.size(); ++i) accepted[i] = accepted[chosen[i]];
  result.left_out["not in the subset"] = accepted.size() - chosen.size();
  accepted.resize(chosen.size());
}

void Ledger::complete(bool warns) {
  std::vector<std::uint64_t> images_of(result.classes.size());
  const auto all = classes();
  for (const auto c : all.values) ++images_of[static_cast<std::size_t>(c)];
  if (assignment.several) result.targets = all.values.size();
  result.accepted = accepted.size();
  for (std::size_t i = 0; i < accepted.size(); ++i) {
    result.bytes += accepted[i].bytes;
    result.of_archive += accepted[i].of_archive ? 1 : 0;
    result.unlabelled += all.of(i).empty() ? 1 : 0;
  }
  if (!warns || result.classes.empty()) return;
  std::vector<std::string> single;
  const auto used = std::ranges::count_if(images_of, [](auto n) { return n > 0; });
  for (std::size_t c = 0; c < images_of.size(); ++c)
    if (images_of[c] == 1) single.push_back(result.classes[c]);
  if (used == 1) log::warn("all images have the same class: there is nothing to tell apart");
  if (single.empty()) return;
  const auto count = single.size();
  if (count > 5) single.resize(5);
  log::warn(fmt::format("{} of {} classes have one image only: {}{}", count, images_of.size(), fmt::join(single, ", "),
                        count > 5 ? ", ..." : ""));
}
}  // namespace seer::data
