// SPDX-License-Identifier: Apache-2.0

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "seer/data/image.hpp"
#include "shard_set.hpp"

namespace seer::data {
namespace {

using nlohmann::ordered_json;

constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxObjects = 200'000;
constexpr std::uint64_t kBlock_images = 1024;
constexpr std::size_t kMaxDamaged = 20;

const char* name_of(h5::Type type) {
  return std::array{
      "uint8", "int32", "uint32", "int64", "uint64", "float32", "float64"}[static_cast<std::size_t>(type)];
}

ordered_json attributes(const h5::File& file, const std::string& object) {
  ordered_json out = ordered_json::object();
  for (const auto& name : file.attributes(object)) {
    ordered_json& value = out[name];
    const auto put = [&](const auto& get) {
      try {
        value = get();
        return true;
      } catch (const Error&) {
        return false;  // the attribute has another type
      }
    };
    if (!put([&] { return file.get_string(object, name); }) && !put([&] { return file.get_int(object, name); }) &&
        !put([&] { return file.get_double(object, name); }) && !put([&] { return file.get_strings(object, name); }))
      value = "(of another type)";
  }
  return out;
}

bool is_shard(const h5::File& file) try {
  return file.has("/", "format") && file.get_string("/", "format") == kShardFormat;
} catch (const Error&) {
  return false;  // it is not a text
}

/// What a file of unknown origin holds.
struct Contents {
  ordered_json groups = ordered_json::array(), datasets = ordered_json::array();
  std::size_t objects = 0;
  std::uint64_t parameters = 0;
};

/// Adds what lies below a group. Depth and number of objects are limited, since groups can contain themselves.
void visit(const h5::File& file, const std::string& group, int depth, Contents& out) {
  for (const auto& name : file.list(group)) {
    const std::string path = (group == "/" ? "" : group) + fmt::format("/{}", name);
    if (++out.objects > kMaxObjects || depth > kMaxDepth)
      fail(fmt::format("{}: more than {} objects or {} levels of groups", file.path(), kMaxObjects, kMaxDepth));
    const auto own = attributes(file, path);
    if (file.is_group(path)) {
      out.groups.push_back({{"name", path}, {"attributes", own}});
      visit(file, path, depth + 1, out);
      continue;
    }
    const auto d = file.describe(path);
    if (path.starts_with("/model/"))
      out.parameters += std::accumulate(d.dims.begin(), d.dims.end(), std::uint64_t{1}, std::multiplies<>());
    ordered_json set = {
        {"name", path}, {"type", d.type ? name_of(*d.type) : "other"}, {"shape", d.dims}, {"bytes", d.bytes}};
    if (!own.empty()) set["attributes"] = own;
    out.datasets.push_back(std::move(set));
  }
}

struct Range {
  std::uint64_t low = ~std::uint64_t{0}, high = 0;
  void add(std::uint64_t v) {
    low = std::min(low, v);
    high = std::max(high, v);
  }
  ordered_json json() const { return high >= low ? ordered_json{low, high} : ordered_json::array(); }
};

/// Compares the stored checksum and picture size with the image's bytes. Returns "" or the problem.
std::string problem_of(const ImagePlace& place, const std::vector<std::uint8_t>& bytes, std::uint32_t width,
                       std::uint32_t height) {
  try {
    require_intact(place, bytes);
    Image image;
    decode(bytes, std::max(std::int64_t{50'000'000}, std::int64_t{width} * height), image);
    if (image.width == width && image.height == height) return "";
    // Old shards, made before PNG and WebP were turned upright, hold the sides as stored. Only this command reads them.
    const auto header = read_header(bytes);
    const bool as_stored = header.kind != ImageKind::jpeg && header.orientation >= 5;
    if (as_stored && image.width == height && image.height == width) return "";
    return fmt::format("/images/width and height say {} x {}, the picture has {} x {}", width, height, image.width,
                       image.height);
  } catch (const Error& error) {
    return error.what();
  } catch (const std::bad_alloc&) {
    return fmt::format("no memory to decode {} x {} pixels", width, height);
  }
}

void inspect_images(const DataSet& set, bool verify, ordered_json& out) {
  Range bytes, width, height;
  std::vector<std::uint64_t> per_class(set.classes().size() + 1);
  std::uint64_t damaged = 0;
  ordered_json first_damaged = ordered_json::array();
  std::vector<std::uint8_t> image;
  const auto& info = set.shards().front();
  for (std::uint64_t first = 0; first < set.images(); first += kBlock_images) {
    const auto count = std::min(kBlock_images, set.images() - first);
    const auto places = set.places(first, count);
    const auto targets = set.targets(first, count);
    const auto widths = set.read_values<std::uint32_t>(0, info.width_offset, first, count);
    const auto heights = set.read_values<std::uint32_t>(0, info.height_offset, first, count);
    for (std::uint64_t i = 0; i < count; ++i) {
      bytes.add(places[i].bytes);
      width.add(widths[i]);
      height.add(heights[i]);
      for (const auto target : targets.of(i))
        ++per_class[std::min(static_cast<std::size_t>(target), set.classes().size())];
      if (targets.of(i).empty()) ++per_class.back();
      if (!verify) continue;
      image.resize(places[i].bytes);
      set.read(0, places[i].offset, places[i].bytes, image.data());
      const auto problem = problem_of(places[i], image, widths[i], heights[i]);
      if (!problem.empty() && ++damaged <= kMaxDamaged)
        first_damaged.push_back({{"image", first + i}, {"problem", problem}});
    }
  }
  out["image_bytes_range"] = bytes.json();
  out["width_range"] = width.json();
  out["height_range"] = height.json();
  if (set.has_labels()) {
    ordered_json counts = ordered_json::object();
    for (std::size_t c = 0; c < set.classes().size(); ++c) counts[set.classes()[c]] = per_class[c];
    out["images_per_class"] = counts;
    out["images_without_label"] = per_class.back();
  }
  if (verify) {
    out["verified"] = damaged == 0;
    out["damaged_count"] = damaged;
    out["damaged"] = first_damaged;
  }
}

// Hostile files may hold text that is not UTF-8.
std::string text(const ordered_json& j) {
  return j.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

struct Found {
  ordered_json json;
  std::optional<ShardInfo> shard;
};

Found look_at(const std::string& path, bool verify, const comm::Communicator& alone) {
  const std::string other = h5::trial(path, [&](const h5::File& file) {
    if (is_shard(file)) return std::string();
    ordered_json out = {{"file", path}, {"kind", "hdf5"}, {"attributes", attributes(file, "/")}};
    Contents contents;
    visit(file, "/", 0, contents);
    out.update({{"groups", contents.groups}, {"datasets", contents.datasets}});
    if (contents.parameters > 0) out["parameters"] = contents.parameters;
    return text(out);
  });
  if (!other.empty()) {
    Found found{ordered_json::parse(other), std::nullopt};
    if (verify) found.json.update({{"verified", false}, {"problem", kNothingToCompare}});
    return found;
  }
  Found found{{}, read_shard_info(path, alone)};
  const ShardInfo& info = *found.shard;
  auto& out = found.json;
  out = {{"file", path},
         {"kind", "shard"},
         {"version", info.target_begin_offset != 0 ? kTargetsVersion : kShardVersion},
         {"file_bytes", info.file_bytes},
         {"images", info.images},
         {"encoded_bytes", info.pixels_bytes},
         {"classes", info.classes},
         {"labels", info.label_offset != 0}};
  if (info.target_begin_offset != 0) out["targets"] = info.targets;
  if (info.ignored > 0) out["ignored_targets"] = info.ignored;
  if (!info.set.id.empty())
    out["set"] = {{"id", info.set.id}, {"number", info.set.number}, {"shards", info.set.shards}};
  if (info.set.max_pixels > 0) out["max_pixels"] = info.set.max_pixels;
  out["place"] = {{"bytes", info.pixels_offset},  {"offset", info.offset_offset},     {"width", info.width_offset},
                  {"height", info.height_offset}, {"checksum", info.checksum_offset}, {"label", info.label_offset}};
  inspect_images(DataSet(info), verify, out);
  return found;
}

// Describes the sets that the shards belong to.
ordered_json sets_of(const std::vector<ShardInfo>& shards) {
  struct Sum {
    std::set<std::uint64_t> numbers;
    std::uint64_t shards = 0, images = 0;
  };
  std::map<std::string, Sum> sets;
  for (const auto& shard : shards) {
    if (shard.set.id.empty()) continue;
    auto& sum = sets[shard.set.id];
    sum.numbers.insert(shard.set.number);
    sum.shards = shard.set.shards;
    sum.images += shard.images;
  }
  ordered_json out = ordered_json::array();
  for (const auto& [id, sum] : sets)
    out.push_back({{"name", id},
                   {"shards", fmt::format("{} of {} shards", sum.numbers.size(), sum.shards)},
                   {"images", sum.images}});
  return out;
}

}  // namespace

std::string inspect_hdf5(const std::string& path, bool verify, const comm::Communicator& alone) {
  return text(look_at(path, verify, alone).json);
}

std::string inspect_folder(const std::string& folder, bool verify, const comm::Communicator& alone) {
  ordered_json files = ordered_json::array(), problems = ordered_json::array();
  std::vector<ShardInfo> shards;
  std::vector<ChosenShard> chosen;
  bool refused = false;  // whether the folder is unusable as a data set, not just because of a file of another kind
  const auto add_problem = [&](const std::string& file, const std::string& what) {
    problems.push_back({{"file", file}, {"problem", what}});
  };
  const auto paths = shards_in(folder);
  if (paths.empty()) {
    want_finished(folder);
    fail(fmt::format("{}: neither a checkpoint nor a folder of *.h5 files", folder));
  }
  std::uint64_t images = 0;
  for (const auto& path : paths) {
    try {
      auto found = look_at(path, verify, alone);
      if (!found.shard) {
        add_problem(path, "is not a shard");
      } else {
        images += found.shard->images;
        shards.push_back(std::move(*found.shard));
        chosen.push_back({path, true});
        if (!found.json.value("verified", true)) add_problem(path, "its images differ from what was packed");
      }
      files.push_back(std::move(found.json));
    } catch (const Error& error) {
      if (error.code() != ExitCode::file) throw;
      files.push_back({{"file", path}, {"kind", "unreadable"}});
      const std::string what = error.what();  // most begin with the path
      add_problem(path, what.starts_with(path + ": ") ? what.substr(path.size() + 2) : what);
      refused = true;
    }
  }
  if (!refused) {
    try {
      check_sets(shards, chosen);
    } catch (const Error& error) {
      add_problem(folder, error.message());
      refused = true;
    }
  }
  ordered_json out = {{"file", folder}, {"kind", "folder"}, {"images", images}, {"sets", sets_of(shards)}};
  if (verify) out["verified"] = problems.empty();
  if (!problems.empty()) out["problems"] = problems;
  if (refused || (verify && !problems.empty()))
    out["problem"] = fmt::format("{} of {} files: {}: {}{}", problems.size(), paths.size(),
                                 problems[0]["file"].get<std::string>(), problems[0]["problem"].get<std::string>(),
                                 problems.size() > 1 ? "; the others are named above" : "");
  out["files"] = files;
  return text(out);
}

}  // namespace seer::data
