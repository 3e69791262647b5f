// SPDX-License-Identifier: Apache-2.0
// The names of classes and the paths of images in label files.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <numeric>
#include <sstream>

#include "labels.hpp"
#include "pack_parts.hpp"
#include "seer/base/names.hpp"

namespace seer::data {
namespace {

/// The text as a number from 0; nothing if it is none.
std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value)
                                                                                   : std::nullopt;
}

bool ends_earlier(std::string_view a, std::string_view b) {
  return std::lexicographical_compare(a.rbegin(), a.rend(), b.rbegin(), b.rend());
}

}  // namespace

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream all;
  if (in) all << in.rdbuf();
  if (!in) fail(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)), "correct the path");
  auto text = std::move(all).str();
  if (const auto wrong = remove_byte_order_mark(text); !wrong.empty()) fail(fmt::format("{}: {}", path, wrong));
  if (const auto zero = text.find('\0'); zero != std::string::npos)
    fail(fmt::format("{}:{}: found a zero byte", path, 1 + std::count(text.begin(), text.begin() + zero, '\n')),
         "label files and lists are UTF-8 text");
  return text;
}

ClassNames::ClassNames(const std::string& file) : file_(file) {
  std::vector<std::string> lines;
  std::vector<std::size_t> numbers;
  auto text = read_text(file);
  std::ranges::replace(text, '\r', '\n');
  std::istringstream in(text);
  bool numbered = true;
  for (std::string line; std::getline(in, line);) {
    line.erase(0, line.find_first_not_of(" \t"));
    line.erase(line.find_last_not_of(" \t") + 1);
    if (line.empty()) continue;
    const auto blank = line.find_last_of(" \t");
    const auto index = blank == std::string::npos ? std::nullopt : number(std::string_view(line).substr(blank + 1));
    numbered = numbered && index.has_value();
    numbers.push_back(index.value_or(0));
    lines.push_back(utf8_name(line));
  }
  if (lines.empty()) fail(fmt::format("{}: names no class", file), "write one name a line");
  names_.resize(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    auto& line = lines[i];
    if (numbered) line.erase(line.find_last_not_of(" \t", line.find_last_of(" \t")) + 1);
    const auto at = numbered ? numbers[i] : i;
    if (at >= names_.size() || !names_[at].empty())
      fail(fmt::format("{}: class \"{}\" has the number {}, wanted each number from 0 to {} once", file, line, at,
                       names_.size() - 1));
    if (!numbers_.emplace(line, static_cast<std::int32_t>(at)).second)
      fail(fmt::format("{}: names the class \"{}\" twice", file, line), "give every class its own name");
    names_[at] = std::move(line);
  }
}

std::int32_t ClassNames::number_of(const std::string& name, const std::string& place) {
  if (!fixed()) {
    const auto [at, is_new] = numbers_.try_emplace(name, static_cast<std::int32_t>(names_.size()));
    if (is_new) names_.push_back(name);
    return at->second;
  }
  if (const auto at = numbers_.find(name); at != numbers_.end()) return at->second;
  const auto index = number(name);
  if (!index || *index >= names_.size())
    fail(fmt::format("{}: the class \"{}\" is none of the {} in {}", place, name, names_.size(), file_),
         "correct it, or add it there");
  return static_cast<std::int32_t>(*index);
}

std::vector<std::int32_t> ClassNames::sort() {
  std::vector<std::int32_t> order(names_.size()), out(names_.size());
  std::iota(order.begin(), order.end(), 0);
  const auto name = [&](std::int32_t i) -> const std::string& { return names_[static_cast<std::size_t>(i)]; };
  const bool numbers = std::ranges::all_of(names_, [](const auto& n) { return number(n).has_value(); });
  if (!fixed())
    std::ranges::sort(order, [&](std::int32_t a, std::int32_t b) {
      return numbers ? std::pair(*number(name(a)), name(a)) < std::pair(*number(name(b)), name(b)) : name(a) < name(b);
    });
  std::vector<std::string> names;
  for (std::size_t i = 0; i < order.size(); ++i) {
    out[static_cast<std::size_t>(order[i])] = static_cast<std::int32_t>(i);
    names.push_back(name(order[i]));
  }
  names_ = std::move(names);
  for (auto& [text, at] : numbers_) at = out[static_cast<std::size_t>(at)];
  return out;
}

void PathIndex::add(std::string_view path, std::uint32_t line, const std::string& place) {
  const auto parts = parts_of(path);
  for (const auto part : parts)
    if (part != "/") (names_ += '/') += part;
  if (names_.size() == begins_.back()) fail(fmt::format("{}: \"{}\" is not the path of a file", place, path));
  begins_.push_back(names_.size());
  lines_.push_back(line);
  endings_ = endings_ || is_image_name(parts.back());
}

std::vector<std::uint32_t> PathIndex::sort() {
  ensure(size() < (std::uint64_t{1} << 31), "a label file names fewer than 2^31 images");
  std::vector<std::uint32_t> order(size()), out(size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, [this](std::uint32_t a, std::uint32_t b) { return ends_earlier(path(a), path(b)); });
  PathIndex sorted;
  for (const auto i : order) {
    if (sorted.size() == 0 || sorted.path(sorted.size() - 1) != path(i)) {
      sorted.names_ += path(i);
      sorted.begins_.push_back(sorted.names_.size());
      sorted.lines_.push_back(lines_[i]);
    }
    out[i] = static_cast<std::uint32_t>(sorted.size()) - 1;
  }
  sorted.endings_ = endings_;
  *this = std::move(sorted);
  return out;
}

PathIndex::Found PathIndex::find(std::string_view file, std::size_t inner) const {
  if (!endings_ && is_image_name(file)) file = file.substr(0, file.rfind('.'));
  // Paths that end like the file, from its name to ever longer ends.
  std::uint32_t first = 0, last = static_cast<std::uint32_t>(size());
  Found best;
  for (auto at = file.rfind('/');; at = file.rfind('/', at - 1)) {
    const auto end = file.substr(at);
    const auto bound = [&](auto&& before) {
      auto low = first;
      for (auto count = last - first; count > 0;) {
        const auto half = count / 2;
        if (before(path(low + half))) {
          low += half + 1;
          count -= half + 1;
        } else {
          count = half;
        }
      }
      return low;
    };
    first = bound([&](std::string_view p) { return ends_earlier(p, end); });
    last = bound([&](std::string_view p) { return p.ends_with(end); });
    if (first == last) break;
    if (path(first).size() == end.size())
      best = {first, Fit::ends_file};
    else if (last - first == 1 && best.fit != Fit::ends_file && (at == inner || best.fit == Fit::none))
      best = {first, at == inner ? Fit::ends_with_file : Fit::same_name};
    if (at == 0) break;
  }
  return best;
}

std::string LabelTable::place(std::size_t i) const {
  const auto name = paths.path(i).substr(1);
  if (unit == Unit::json_image) return fmt::format("{}, images[{}] ({})", file, paths.line(i), name);
  if (unit == Unit::xml_file) return fmt::format("{}/{}.xml", file, name.substr(0, name.rfind('.')));
  return fmt::format("{}:{} ({})", file, paths.line(i), name);
}

void LabelBuilder::add(std::string_view path, std::uint32_t line, const std::string& place,
                       std::span<const std::int32_t> classes, std::span<const std::int32_t> ignored) {
  table_.paths.add(path, line, place);
  table_.targets.add(classes);
  table_.ignored.add(ignored);
}

LabelTable LabelBuilder::finish(bool sort_classes) {
  const auto rows = table_.paths.sort();
  const auto entries = table_.paths.size();
  std::vector<std::int32_t> renumbered;
  if (sort_classes) renumbered = classes_.sort();
  // Rows in the order of their entries: those of one entry follow each other.
  std::vector<std::uint32_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0U);
  std::ranges::stable_sort(order, {}, [&](std::uint32_t row) { return rows[row]; });
  Targets targets, ignored;
  std::vector<std::int32_t> classes, unsure;
  std::size_t at = 0;
  for (std::size_t entry = 0; entry < entries; ++entry) {
    classes.clear();
    unsure.clear();
    std::size_t of_first = 0;
    for (const auto begin = at; at < order.size() && rows[order[at]] == entry; ++at) {
      for (const auto c : table_.targets.of(order[at]))
        classes.push_back(sort_classes ? renumbered[static_cast<std::size_t>(c)] : c);
      for (const auto c : table_.ignored.of(order[at]))
        unsure.push_back(sort_classes ? renumbered[static_cast<std::size_t>(c)] : c);
      if (at == begin) of_first = classes.size();
    }
    const auto unique = [](auto& values) {
      std::ranges::sort(values);
      values.erase(std::ranges::unique(values).begin(), values.end());
    };
    unique(classes);
    unique(unsure);
    if (classes.size() > of_first) ++table_.united;
    targets.add(classes);
    ignored.add(unsure);
    table_.several = table_.several || classes.size() > 1 || !unsure.empty();
  }
  table_.targets = std::move(targets);
  table_.ignored = std::move(ignored);
  table_.classes = classes_.names();
  return std::move(table_);
}

}  // namespace seer::data
