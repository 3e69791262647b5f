// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/names.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "seer/base/error.hpp"

namespace seer::checkpoint {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& name) {
  Words words(1);
  for (const char c : name) {
    if (c == '.') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

std::string join(const Words& words) {
  return fmt::format("{}", fmt::join(words, "."));
}

bool starts(const Words& words, std::initializer_list<std::string_view> with) {
  return words.size() >= with.size() && std::equal(with.begin(), with.end(), words.begin());
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

// "block2-part0", a level that VISSL's checkpointed trunks insert; "block2-0" is a block.
bool is_part(const std::string& word) {
  const auto at = word.find("-part");
  return word.starts_with("block") && at != std::string::npos && number(std::string_view(word).substr(at + 5));
}

// Inside a block: ClassyVision's words (first) for torchvision's.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kInBlock = {{
    {"proj.weight", "proj.0.weight"},
    {"bn.", "proj.1."},
    {"f.se.excitation.0.", "f.se.fc1."},
    {"f.se.excitation.2.", "f.se.fc2."},
    {"f.c.weight", "f.c.0.weight"},
    {"f.final_bn.", "f.c.1."},
}};

std::string in_block_ours(const std::string& rest) {
  for (const auto& [theirs, ours] : kInBlock) {
    const bool whole = theirs.back() != '.';
    if (whole ? rest == theirs : rest.starts_with(theirs)) return std::string(ours) + rest.substr(theirs.size());
  }
  return rest;
}

std::string in_block_theirs(const std::string& rest) {
  for (const auto& [theirs, ours] : kInBlock) {
    const bool whole = ours.back() != '.';
    if (whole ? rest == ours : rest.starts_with(ours)) return std::string(theirs) + rest.substr(ours.size());
  }
  return rest;
}

// heads.0.projection_head.<place>.<leaf> and heads.0.prototypes0.weight
std::optional<std::string> head_ours(Words words, int stride) {
  if (starts(words, {"heads"})) words.erase(words.begin());
  if (starts(words, {"0"})) words.erase(words.begin());
  if (words == Words{"prototypes0", "weight"}) return "prototypes.weight";
  if (words.size() != 3 || words[0] != "projection_head") return std::nullopt;
  const auto place = number(words[1]);
  if (!place) return std::nullopt;
  if (*place % stride == 0) return fmt::format("head.{}.{}", *place / stride, words[2]);
  if (stride == 3 && *place % stride == 1) return fmt::format("head.{}.norm.{}", *place / stride, words[2]);
  return std::nullopt;
}

}  // namespace

Naming parse_naming(const std::string& text) {
  if (text == "auto") return Naming::automatic;
  if (text == "torchvision") return Naming::torchvision;
  if (text == "vissl") return Naming::vissl;
  throw Error(ExitCode::input, fmt::format("--names {}", text), "wanted: auto, torchvision or vissl");
}

std::string strip_wrappers(const std::string& name) {
  constexpr std::array<std::string_view, 7> kLeading = {
      "classy_state_dict", "state_dict", "base_model", "model", "module", "trunk", "_feature_blocks"};
  Words words;
  bool leading = true;
  for (auto& word : split(name)) {
    const bool wrapper = word == "_fsdp_wrapped_module" || word == "_fpw_module" || is_part(word);
    leading = leading && (wrapper || std::find(kLeading.begin(), kLeading.end(), word) != kLeading.end());
    if (!leading && !wrapper) words.push_back(std::move(word));
  }
  return words.empty() ? name : join(words);
}

int projection_head_stride(const std::vector<std::string>& names) {
  // A BatchNorm stands where, without one, a ReLU has no tensors: place 1.
  for (const auto& name : names) {
    if (strip_wrappers(name).find("projection_head.1.") != std::string::npos) return 3;
  }
  return 2;
}

std::string our_name(const std::string& foreign, Naming naming, int head_stride) {
  const auto name = strip_wrappers(foreign);
  if (naming == Naming::torchvision) return name;
  auto words = split(name);
  if (auto head = head_ours(words, head_stride)) return *head;
  if (starts(words, {"conv1", "stem"}) || starts(words, {"stem", "stem"})) {
    words.erase(words.begin());
    return join(words);
  }
  // res<s+1>.block<s>-<i>.rest (VISSL) or trunk_output.block<s>.block<s>-<i>.rest (ClassyVision, torchvision)
  std::size_t at = 0;
  if (words.size() > 2 && words[0].starts_with("res") && number(std::string_view(words[0]).substr(3))) {
    at = 1;
  } else if (words.size() > 3 && words[0] == "trunk_output") {
    at = 2;
  } else {
    return name;
  }
  const auto& block = words[at];
  const auto dash = block.find('-');
  if (!block.starts_with("block") || dash == std::string::npos) return name;
  const auto rest = join(Words(words.begin() + static_cast<std::ptrdiff_t>(at) + 1, words.end()));
  return fmt::format("trunk_output.{}.{}.{}", block.substr(0, dash), block, in_block_ours(rest));
}

std::string foreign_name(const std::string& ours, Naming naming, int head_stride, bool full_model) {
  if (naming != Naming::vissl) return ours;
  const auto words = split(ours);
  if (ours == "prototypes.weight") return "heads.0.prototypes0.weight";
  if (words.size() >= 3 && words[0] == "head") {
    const int layer = number(words[1]).value_or(0);
    const bool norm = words[2] == "norm";
    return fmt::format("heads.0.projection_head.{}.{}", layer * head_stride + (norm ? 1 : 0), words.back());
  }
  const std::string prefix = full_model ? "trunk._feature_blocks." : "_feature_blocks.";
  if (words[0] == "stem") return prefix + "conv1." + ours;
  if (words.size() > 3 && words[0] == "trunk_output") {
    const int stage = number(std::string_view(words[1]).substr(5)).value_or(0);
    const auto rest = join(Words(words.begin() + 3, words.end()));
    return fmt::format("{}res{}.{}.{}", prefix, stage + 1, words[2], in_block_theirs(rest));
  }
  return ours;
}

}  // namespace seer::checkpoint
