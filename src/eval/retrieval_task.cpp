// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/retrieval_task.hpp"
#include "gathered.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <unordered_map>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/base/names.hpp"
#include "seer/data/image_names.hpp"

namespace seer::eval {
namespace {

constexpr std::array kLists = {"easy", "hard", "junk"};
constexpr std::size_t kEasy = 0, kHard = 1, kJunk = 2;

NamedQuery parse_query(const nlohmann::json& in, const std::string& place) {
  const auto refuse = [&](const std::string& what) { throw Error(ExitCode::file, fmt::format("{}: {}", place, what)); };
  NamedQuery out;
  if (!in.is_object() || !in.contains("image") || !in["image"].is_string()) refuse("wanted an object with \"image\"");
  out.image = in["image"];
  std::set<std::string> seen;
  for (const auto& [key, value] : in.items()) {
    const auto list = std::ranges::find(kLists, key);
    const auto strings = [](const nlohmann::json& all) {
      return all.is_array() && std::ranges::all_of(all, [](const auto& one) { return one.is_string(); });
    };
    if (key == "image") continue;
    if (key == "box") {
      if (!value.is_array() || value.size() != 4 ||
          !std::ranges::all_of(value, [](const auto& one) { return one.is_number(); }))
        refuse("\"box\" must be [left, top, right, bottom]");
      out.box = value.get<std::array<double, 4>>();
      if (!((*out.box)[0] < (*out.box)[2] && (*out.box)[1] < (*out.box)[3])) refuse("the box is empty");
    } else if (list != kLists.end()) {
      if (!strings(value)) refuse(fmt::format("\"{}\" must be a list of image names", key));
      for (const auto& name : out.answers[static_cast<std::size_t>(list - kLists.begin())] = value)
        if (!seen.insert(name).second) refuse(fmt::format("{} is listed twice", name));
    } else {
      refuse(fmt::format("unknown key \"{}\", wanted image, box, easy, hard, junk", key));
    }
  }
  return out;
}

/// The last part of a name, without the ending of an image.
std::string stem_of(const std::string& name) {
  auto last = name.substr(name.rfind('/') + 1);
  const auto dot = last.rfind('.');
  if (dot == std::string::npos) return last;
  auto ending = last.substr(dot);
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp" ? last.substr(0, dot) : last;
}

/// This rank's names, and the index of the first one.
std::pair<std::vector<std::string>, std::uint64_t> my_names(const comm::Communicator& comm, const data::DataSet& data) {
  const auto first = slice_begin(data.images(), comm.rank(), comm.size()),
             last = slice_begin(data.images(), comm.rank() + 1, comm.size());
  return {data::image_names(data, first, last - first), first};
}

void want_names(const comm::Communicator& comm, const std::vector<std::string>& mine, const std::string& whose) {
  const auto named = std::ranges::count_if(mine, [](const auto& name) { return !name.empty(); });
  if (comm.all_reduce(static_cast<std::int64_t>(named), comm::Op::sum) > 0) return;
  throw Error(ExitCode::file, fmt::format("{}: the shards hold no names of images", whose), "pack them again")
      .as_agreed();
}

/// The kind in a copy's name: "crop" of "photo.jpg+crop-10".
std::string group_in(const std::string& name) {
  const auto plus = name.rfind('+');
  return plus == std::string::npos ? "" : name.substr(plus + 1, name.find('-', plus) - plus - 1);
}

/// Collective. `keys` and `names` are those of this rank's slice.
ImageKeys with_groups(const comm::Communicator& comm, const std::vector<std::uint64_t>& keys,
                      const std::vector<std::string>& names) {
  constexpr std::size_t kMostGroups = 200;
  std::set<std::string> groups;
  for (const auto& name : names) groups.insert(group_in(name));
  std::string text;
  for (const auto& group : groups) text += group + '\n';
  for (const auto& other : comm.all_gather(text)) {
    std::istringstream lines(other);
    for (std::string line; std::getline(lines, line);) groups.insert(line);
  }
  ImageKeys out;
  if (groups.size() > kMostGroups) groups = {""};  // these are other names
  out.groups.assign(groups.begin(), groups.end());
  std::vector<std::uint8_t> mine;
  for (const auto& name : names) {
    const auto at = std::ranges::find(out.groups, group_in(name));
    mine.push_back(at == out.groups.end() ? 0 : static_cast<std::uint8_t>(at - out.groups.begin()));
  }
  out.keys = gathered(comm, keys);
  out.group_of = gathered(comm, mine);
  return out;
}

std::uint64_t key_of(const std::string& text) {
  return std::max<std::uint64_t>(1, checksum(text));
}

}  // namespace

std::vector<NamedQuery> parse_queries(const std::string& text, const std::string& path) {
  nlohmann::json in;
  try {
    in = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(ExitCode::file, fmt::format("{}: not JSON: {}", path, error.what()));
  }
  if (!in.is_object() || !in.contains("queries") || !in["queries"].is_array() || in["queries"].empty())
    throw Error(ExitCode::file, fmt::format("{}: wanted an object with a list \"queries\"", path),
                "docs/formats.md shows the form");
  std::vector<NamedQuery> out;
  for (const auto& query : in["queries"])
    out.push_back(parse_query(query, fmt::format("{}: query {}", path, out.size())));
  return out;
}

std::vector<NamedQuery> read_queries(const comm::Communicator& comm, const std::string& path) {
  std::string text;
  std::vector<NamedQuery> out;
  comm::agree(comm, "reading the queries", [&] {
    if (!comm.is_root()) return;
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    if (!file || !(content << file.rdbuf())) throw Error(ExitCode::file, fmt::format("{}: cannot be read", path));
    text = content.str();
  });
  comm.broadcast(text);
  comm::agree(comm, "reading the queries", [&] { out = parse_queries(text, path); });
  return out;
}

std::vector<std::uint64_t> find_images(const comm::Communicator& comm, const data::DataSet& data,
                                       const std::vector<std::string>& names, const std::string& whose) {
  std::unordered_map<std::string, std::vector<std::size_t>> by_name, by_stem;
  for (std::size_t i = 0; i < names.size(); ++i) {
    by_name[names[i]].push_back(i);
    by_stem[stem_of(names[i])].push_back(i);
  }
  std::vector<std::string> mine;
  std::uint64_t first = 0;
  comm::agree(comm, "names of images", [&] { std::tie(mine, first) = my_names(comm, data); });
  want_names(comm, mine, whose);
  // For each name: images with it and the sum of their indices, and the same for its stem.
  std::vector<std::int64_t> found(4 * names.size(), 0);
  const auto count = [&](const auto& map, const std::string& name, std::size_t column, std::uint64_t index) {
    const auto at = map.find(name);
    if (at == map.end()) return;
    for (const auto i : at->second) {
      ++found[4 * i + column];
      found[4 * i + column + 1] += static_cast<std::int64_t>(index);
    }
  };
  for (std::size_t i = 0; i < mine.size(); ++i) {
    count(by_name, mine[i], 0, first + i);
    count(by_stem, stem_of(mine[i]), 2, first + i);
  }
  comm.all_reduce(std::span(found));
  std::vector<std::uint64_t> out;
  std::vector<std::string> missing, several;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto* of = found.data() + 4 * i + (found[4 * i] > 0 ? 0 : 2);
    if (of[0] == 0) missing.push_back(names[i]);
    if (of[0] > 1) several.push_back(names[i]);
    out.push_back(static_cast<std::uint64_t>(of[1]));
  }
  for (const auto& [wrong, what] :
       {std::pair(&missing, "no image of these names"), std::pair(&several, "several images of these names")}) {
    if (wrong->empty()) continue;
    throw Error(ExitCode::file, fmt::format("{}: {}: {}", whose, what, few_names(*wrong)),
                "seer inspect shows the names of a shard; a name may be that of the file alone, or its whole path")
        .as_agreed();
  }
  return out;
}

RetrievalTask revisited_task(const comm::Communicator& comm, const std::vector<NamedQuery>& queries,
                             const std::vector<std::uint64_t>& selves, const data::DataSet& database,
                             const std::string& path) {
  std::map<std::string, std::uint64_t> places;
  for (const auto& query : queries)
    for (const auto& list : query.answers)
      for (const auto& name : list) places.emplace(name, 0);
  std::vector<std::string> names;
  for (const auto& [name, place] : places) names.push_back(name);
  const auto found = find_images(comm, database, names, path + " in the database");
  for (std::size_t i = 0; i < names.size(); ++i) places[names[i]] = found[i];
  RetrievalTask out;
  out.protocol = "revisited";
  out.judgements = {
      {"easy", {kEasy}, {kHard, kJunk}}, {"medium", {kEasy, kHard}, {kJunk}}, {"hard", {kHard}, {kEasy, kJunk}}};
  for (std::size_t q = 0; q < queries.size(); ++q) {
    Answers answers;
    for (const auto& list : queries[q].answers) {
      auto& group = answers.groups.emplace_back();
      for (const auto& name : list) group.push_back(places[name]);
      std::ranges::sort(group);
    }
    out.queries.push_back({std::make_shared<const Answers>(std::move(answers)),
                           selves.empty() ? -1 : static_cast<std::int64_t>(selves[q])});
  }
  return out;
}

ImageKeys keys_by_label(const comm::Communicator& comm, const data::DataSet& data, const std::string& path) {
  std::vector<std::uint64_t> keys;
  std::vector<std::string> names;
  comm::agree(comm, "labels", [&] {
    if (!data.has_labels())
      throw Error(ExitCode::file, fmt::format("{} has no labels", path),
                  "pack it with labels, or give --copies-of or --query-file");
    const auto [mine, first] = my_names(comm, data);
    names = mine;
    for (const auto label : data.labels(first, mine.size())) {
      const auto& classes = data.classes();
      keys.push_back(
          label < 0 ? 0
                    : key_of(classes.empty() ? fmt::format("{}", label) : classes[static_cast<std::size_t>(label)]));
    }
  });
  return with_groups(comm, keys, names);
}

ImageKeys keys_by_name(const comm::Communicator& comm, const data::DataSet& data, const std::string& expression,
                       const std::string& path) {
  std::vector<std::uint64_t> keys;
  std::vector<std::string> names;
  comm::agree(comm, "names of images", [&] {
    std::regex regex;
    try {
      regex = std::regex(expression);
    } catch (const std::regex_error& error) {
      throw Error(ExitCode::input,
                  fmt::format("--copies-of \"{}\": not a regular expression: {}", expression, error.what()));
    }
    names = my_names(comm, data).first;
    for (const auto& name : names) {
      std::smatch match;
      const bool found = std::regex_search(name, match, regex);
      keys.push_back(found ? key_of(match[match.size() > 1 ? 1 : 0].str()) : 0);
    }
  });
  want_names(comm, names, path);
  return with_groups(comm, keys, names);
}

RetrievalTask copies_task(const std::string& protocol, const ImageKeys& queries, const ImageKeys& database, bool same) {
  std::unordered_map<std::uint64_t, std::shared_ptr<Answers>> answers;
  const auto empty = std::make_shared<Answers>();
  empty->groups.resize(database.groups.size());
  for (const auto key : queries.keys)
    if (key != 0) answers.emplace(key, nullptr);
  for (std::size_t i = 0; i < database.keys.size(); ++i) {
    const auto at = answers.find(database.keys[i]);
    if (at == answers.end()) continue;
    if (at->second == nullptr) at->second = std::make_shared<Answers>(*empty);
    at->second->groups[database.group_of[i]].push_back(i);
  }
  RetrievalTask out;
  out.protocol = protocol;
  for (std::size_t i = 0; i < queries.keys.size(); ++i) {
    const auto at = answers.find(queries.keys[i]);
    const auto known = at == answers.end() || at->second == nullptr ? empty : at->second;
    out.queries.push_back({known, same ? static_cast<std::int64_t>(i) : -1});
  }
  std::vector<std::size_t> all(database.groups.size());
  for (std::size_t g = 0; g < all.size(); ++g) all[g] = g;
  out.judgements.push_back({"all", all, {}});
  for (const auto g : all) {
    if (all.size() == 1 || database.groups[g].empty()) continue;
    auto others = all;
    std::erase(others, g);
    out.judgements.push_back({database.groups[g], {g}, others});
  }
  return out;
}

}  // namespace seer::eval
