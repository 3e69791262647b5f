// SPDX-License-Identifier: Apache-2.0
// The names that other libraries give to our tensors.
#include "seer/weights/exchange.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>
#include <string_view>

#include "seer/base/error.hpp"

namespace seer::weights {
namespace {

using Words = std::vector<std::string>;

Words split(const std::string& name) {
  Words words;
  std::istringstream in(name + ".");
  for (std::string word; std::getline(in, word, '.');) words.push_back(word);
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

// True for "block2-part0", a level that VISSL's checkpointed trunks insert; "block2-0" is a block.
bool is_part(const std::string& word) {
  const auto at = word.find("-part");
  return word.starts_with("block") && at != std::string::npos && number(std::string_view(word).substr(at + 5));
}

using Renaming = std::pair<std::string_view, std::string_view>;

// Names inside a block: ClassyVision's (first) and torchvision's (second).
constexpr Renaming kInBlock[] = {
    {"proj.weight", "proj.0.weight"},    {"bn.", "proj.1."},
    {"f.se.excitation.0.", "f.se.fc1."}, {"f.se.excitation.2.", "f.se.fc2."},
    {"f.c.weight", "f.c.0.weight"},      {"f.final_bn.", "f.c.1."},
};

// A row {"x.", "y."} turns "x.weight" into "y.weight"; a row without the dot stands for whole names.
std::optional<std::string> renamed(const auto& table, const std::string& name, bool backwards = false) {
  for (const auto& [first, second] : table) {
    const auto from = backwards ? second : first, to = backwards ? first : second;
    const bool whole = from.back() != '.';
    if (whole ? name == from : name.starts_with(from)) return std::string(to) + name.substr(from.size());
  }
  return std::nullopt;
}

// Names of timm, pycls (s<stage>.b<block>., from 1) and transformers (stages.<stage>.layers.<block>., from 0).
constexpr Renaming kOfLibraries[] = {
    {"stem.conv.", "stem.0."},
    {"stem.bn.", "stem.1."},
    {"head.fc.", "fc."},
    {"embedder.embedder.convolution.", "stem.0."},
    {"embedder.embedder.normalization.", "stem.1."},
    {"classifier.1.", "fc."},
};
constexpr Renaming kInLibrariesBlock[] = {
    {"conv1.conv.", "f.a.0."},  // timm
    {"conv1.bn.", "f.a.1."},
    {"conv2.conv.", "f.b.0."},
    {"conv2.bn.", "f.b.1."},
    {"se.", "f.se."},
    {"conv3.conv.", "f.c.0."},
    {"conv3.bn.", "f.c.1."},
    {"downsample.conv.", "proj.0."},
    {"downsample.bn.", "proj.1."},
    {"f.a.weight", "f.a.0.weight"},  // pycls
    {"f.a_bn.", "f.a.1."},
    {"f.b.weight", "f.b.0.weight"},
    {"f.b_bn.", "f.b.1."},
    {"f.se.f_ex.0.", "f.se.fc1."},
    {"f.se.f_ex.2.", "f.se.fc2."},
    {"f.c.weight", "f.c.0.weight"},
    {"f.c_bn.", "f.c.1."},
    {"proj.weight", "proj.0.weight"},
    {"bn.", "proj.1."},
    {"layer.0.convolution.", "f.a.0."},  // transformers
    {"layer.0.normalization.", "f.a.1."},
    {"layer.1.convolution.", "f.b.0."},
    {"layer.1.normalization.", "f.b.1."},
    {"layer.2.attention.0.", "f.se.fc1."},
    {"layer.2.attention.2.", "f.se.fc2."},
    {"layer.3.convolution.", "f.c.0."},
    {"layer.3.normalization.", "f.c.1."},
    {"shortcut.convolution.", "proj.0."},
    {"shortcut.normalization.", "proj.1."},
};

std::optional<std::string> library_ours(const Words& words) {
  if (auto name = renamed(kOfLibraries, join(words))) return name;
  std::optional<int> stage, block;
  std::ptrdiff_t at = 2;
  if (words.size() > 2 && words[0].starts_with('s') && words[1].starts_with('b')) {
    stage = number(std::string_view(words[0]).substr(1));
    block = number(std::string_view(words[1]).substr(1));
    if (block) --*block;
  } else if (words.size() > 4 && words[0] == "stages" && words[2] == "layers") {
    stage = number(words[1]);
    block = number(words[3]);
    if (stage) ++*stage;
    at = 4;
  }
  if (!stage || !block) return std::nullopt;
  const auto rest = renamed(kInLibrariesBlock, join(Words(words.begin() + at, words.end())));
  if (!rest) return std::nullopt;
  return fmt::format("trunk_output.block{0}.block{0}-{1}.{2}", *stage, *block, *rest);
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

constexpr std::string_view kLeading[] = {
    "classy_state_dict", "state_dict", "base_model", "model",   "module",  "trunk", "_feature_blocks", "backbone",
    "encoder",           "regnet",     "student",    "teacher", "network", "net",   "model_ema"};
constexpr std::string_view kAnywhere[] = {"_orig_mod", "_fsdp_wrapped_module", "_fpw_module",
                                          "_checkpoint_wrapped_module"};

bool one_of(const auto& list, const std::string& word) {
  return std::ranges::find(list, word) != std::end(list);
}

// Returns the words that remain, and the levels that were removed before the first of them: "", or with a dot at the
// end.
std::pair<Words, std::string> without_wrappers(const std::string& name) {
  Words words;
  std::string leading;
  for (auto& word : split(name)) {
    const bool wrapper = one_of(kAnywhere, word) || is_part(word);
    if (wrapper || (words.empty() && one_of(kLeading, word))) {
      if (words.empty()) leading += word + ".";
    } else {
      words.push_back(std::move(word));
    }
  }
  return {words, leading};
}

}  // namespace

Naming parse_naming(const std::string& text) {
  if (text == "auto") return Naming::automatic;
  if (text == "torchvision") return Naming::torchvision;
  if (text == "vissl") return Naming::vissl;
  throw Error(ExitCode::input, fmt::format("--names {}", text), "wanted: auto, torchvision or vissl");
}

std::string strip_wrappers(const std::string& name) {
  const auto [words, leading] = without_wrappers(name);
  return words.empty() ? name : join(words);
}

std::string wrapper_prefix(const std::string& name) {
  const auto [words, leading] = without_wrappers(name);
  return words.empty() ? "" : leading;
}

int projection_head_stride(const std::vector<std::string>& names) {
  // Position 1 is a BatchNorm, or else a ReLU, which has no tensors.
  const auto normed = [](const std::string& name) {
    return strip_wrappers(name).find("projection_head.1.") != std::string::npos;
  };
  return std::ranges::any_of(names, normed) ? 3 : 2;
}

std::string our_name(const std::string& foreign, Naming naming, int head_stride) {
  const auto name = strip_wrappers(foreign);
  if (naming == Naming::torchvision) return name;
  const auto words = split(name);
  if (auto head = head_ours(words, head_stride)) return *head;
  if (auto library = library_ours(words); library && naming == Naming::automatic) return *library;
  if (starts(words, {"conv1", "stem"}) || starts(words, {"stem", "stem"}))
    return join(Words(words.begin() + 1, words.end()));
  // res<s+1>.block<s>-<i>.rest (VISSL) or trunk_output.block<s>.block<s>-<i>.rest (ClassyVision, torchvision)
  std::ptrdiff_t at = 0;
  if (words.size() > 2 && words[0].starts_with("res") && number(std::string_view(words[0]).substr(3))) at = 1;
  if (words.size() > 3 && words[0] == "trunk_output") at = 2;
  const auto& block = words[static_cast<std::size_t>(at)];
  const auto dash = block.find('-');
  if (at == 0 || !block.starts_with("block") || dash == std::string::npos) return name;
  const auto rest = join(Words(words.begin() + at + 1, words.end()));
  return fmt::format("trunk_output.{}.{}.{}", block.substr(0, dash), block, renamed(kInBlock, rest).value_or(rest));
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
    return fmt::format("{}res{}.{}.{}", prefix, stage + 1, words[2], renamed(kInBlock, rest, true).value_or(rest));
  }
  return prefix + ours;
}

}  // namespace seer::weights
