// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/feature.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>

#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr std::int64_t kMostCells = 1024, kMostLevels = 16;
constexpr double kMostPower = 1000;

[[noreturn]] void refuse(const std::string& feature, const std::string& why) {
  throw Error(ExitCode::input, fmt::format("feature \"{}\": {}", feature, why),
              "wanted trunk, head, or an output of the trunk alone or with a pooling: res5, res5:2x1, res5:gem3, "
              "res5:rmac3, res5:map; several after one another with +")
      .as_agreed();
}

/// The whole text as a number.
template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(at, begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

FeaturePart parse_part(const std::string& feature, const std::string& text) {
  FeaturePart part;
  const auto colon = text.find(':');
  part.tap = text.substr(0, colon);
  if (part.tap == "pooled") part.tap = "trunk";
  if (part.tap.empty()) refuse(feature, "a part is empty");
  if (colon == std::string::npos) return part;
  if (part.tap == "trunk" || part.tap == "head") refuse(feature, part.tap + " is a vector, which is not pooled");
  const std::string_view how = std::string_view(text).substr(colon + 1);
  if (how == "map") {
    part.pool = Pool::map;
  } else if (how.starts_with("gem")) {
    part.pool = Pool::gem;
    const auto power = how == "gem" ? part.power : number_in<double>(how.substr(3)).value_or(0);
    if (!(power > 0 && power <= kMostPower))
      refuse(feature, fmt::format("gem needs a power above 0, and at most {}", kMostPower));
    part.power = power;
  } else if (how.starts_with("rmac")) {
    part.pool = Pool::rmac;
    const auto levels = how == "rmac" ? part.levels : number_in<std::int64_t>(how.substr(4)).value_or(0);
    if (levels < 1 || levels > kMostLevels) refuse(feature, fmt::format("rmac needs 1 to {} scales", kMostLevels));
    part.levels = levels;
  } else {
    const auto x = how.find('x');
    if (x == std::string_view::npos) refuse(feature, fmt::format("\"{}\" is no pooling", how));
    const auto height = number_in<std::int64_t>(how.substr(0, x)), width = number_in<std::int64_t>(how.substr(x + 1));
    for (const auto side : {height, width})
      if (side.value_or(0) < 1 || *side > kMostCells) refuse(feature, fmt::format("\"{}\" is no grid of cells", how));
    part.height = *height;
    part.width = *width;
  }
  return part;
}

std::string text_of(const FeaturePart& part) {
  if (part.pool == Pool::map) return part.tap + ":map";
  if (part.pool == Pool::gem) return fmt::format("{}:gem{}", part.tap, part.power);
  if (part.pool == Pool::rmac) return fmt::format("{}:rmac{}", part.tap, part.levels);
  return part.height * part.width == 1 ? part.tap : fmt::format("{}:{}x{}", part.tap, part.height, part.width);
}

}  // namespace

bool Feature::uses(const std::string& tap) const {
  return std::ranges::any_of(parts, [&](const FeaturePart& part) { return part.tap == tap; });
}

Feature parse_feature(const std::string& text) {
  Feature out;
  for (const auto& piece : split(text, '+')) {
    out.parts.push_back(parse_part(text, piece));
    out.text += (out.text.empty() ? "" : "+") + text_of(out.parts.back());
  }
  if (out.parts.size() > 1 && std::ranges::find(out.parts, Pool::map, &FeaturePart::pool) != out.parts.end())
    refuse(text, "a map is not joined with other parts");
  return out;
}

std::vector<Feature> parse_features(const std::string& texts) {
  std::vector<Feature> out;
  for (const auto& text : split(texts, ',')) {
    auto feature = parse_feature(text);
    if (std::ranges::find(out, feature) != out.end()) refuse(texts, feature.text + " is there twice");
    out.push_back(std::move(feature));
  }
  if (std::ranges::count_if(out, &Feature::is_map) > 1) refuse(texts, "only one map is written at a time");
  return out;
}

}  // namespace seer::eval
