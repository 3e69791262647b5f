// SPDX-License-Identifier: Apache-2.0
#include "weights_source.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/nn/model.hpp"
#include "seer/weights/weights.hpp"

namespace seer::run {
namespace {

/// The keys of [model] with their values, as for --set.
std::map<std::string, std::string> keys_of(const config::Model& model) {
  std::map<std::string, std::string> out;
  const config::Head none;
  config::visit_architecture(model, none, [&]<class Value>(const char* name, const Value& value) {
    if constexpr (!std::is_same_v<Value, std::vector<std::int64_t>>) out[name] = fmt::format("{}", value);
  });
  return out;
}

/// "stem.0.weight has shape [32, 3, 3, 3], wanted [16, 3, 3, 3]"; "" if the trunks have the same tensors.
std::string other_tensor(const nn::Model& theirs, const nn::Model& ours) {
  const auto &there = theirs.parameters().entries(), &wanted = ours.parameters().entries();
  for (const auto& p : wanted) {
    const auto found = std::ranges::find(there, p.name, &nn::Parameter::name);
    if (found == there.end()) return fmt::format("{} is missing", p.name);
    if (found->shape != p.shape)
      return fmt::format("{} has shape [{}], wanted [{}]", p.name, fmt::join(found->shape, ", "),
                         fmt::join(p.shape, ", "));
  }
  return there.size() == wanted.size() ? "" : "it has more blocks";
}

void check_trunk(const std::string& source, const config::Model& theirs, const config::Model& ours,
                 const nn::Model& wanted) {
  const auto tensor = other_tensor(nn::Model(theirs), wanted);
  if (tensor.empty()) return;
  std::vector<std::string> differ, set;
  const auto there = keys_of(theirs), here = keys_of(ours);
  for (const auto& [name, value] : there) {
    if (here.at(name) == value) continue;
    differ.push_back(fmt::format("model.{} is \"{}\", here \"{}\"", name, value, here.at(name)));
    set.push_back(fmt::format("--set model.{}={}", name, value));
  }
  throw Error(ExitCode::input,
              fmt::format("{}: its trunk is not that of [model]: {}; {}", source, fmt::join(differ, ", "), tensor),
              fmt::format("{}, or use weights of the trunk in [model]", fmt::join(set, " ")));
}

}  // namespace

bool starts_anew(const config::Config& config, const comm::Communicator& comm, const PretrainOptions& options) {
  char anew = options.resume == "never";
  comm::agree(comm, "looking for checkpoints", [&] {
    if (options.resume == "auto" && config.checkpoint.local_dir.empty() && comm.is_root())
      anew = checkpoint::list_folders(config.log.run_dir).empty();
  });
  comm.broadcast(&anew, sizeof anew);
  return anew != 0;
}

std::string other_classes(const std::vector<std::string>& there, const std::vector<std::string>& here) {
  if (there.empty() || here.empty() || there == here) return "";
  const auto at = static_cast<std::size_t>(std::ranges::mismatch(there, here).in1 - there.begin());
  const auto name = [at](const std::vector<std::string>& of) {
    return at < of.size() ? fmt::format("\"{}\"", of[at]) : std::string("missing");
  };
  return fmt::format("class {} is {} there and {} in data.shards", at, name(there), name(here));
}

void check_source(const config::Config& config, const comm::Communicator& comm,
                  const std::vector<std::string>& classes) {
  const bool tunes = !config.finetune.from.empty();
  const auto& path = tunes ? config.finetune.from : config.model.init_from;
  if (path.empty()) return;
  const auto source = fmt::format("{} {}", tunes ? "finetune.from" : "model.init_from", path);
  const nn::Model wanted(config.model);
  comm::agree(comm, "looking at " + source, [&] {
    if (!comm.is_root()) return;
    const auto from = checkpoint::resolve(path);
    const auto theirs = weights::describe_weights(from);
    weights::require_known(theirs.model, from);
    check_trunk(source, theirs.model, config.model, wanted);
    const auto names = theirs.about.find("classes");
    if (config.finetune.classifier != "keep" || names == theirs.about.end() || classes.empty()) return;
    const auto list = [](const std::string& text) {  // as the weights have them, also names that are not UTF-8
      const auto json = nlohmann::json::parse(text, nullptr, false);
      const auto is_text = [](const auto& name) { return name.is_string(); };
      return json.is_array() && std::ranges::all_of(json, is_text) ? json.get<std::vector<std::string>>()
                                                                   : std::vector<std::string>();
    };
    if (const auto other = other_classes(list(names->second), list(weights::classes_text(classes))); !other.empty())
      throw Error(ExitCode::input, fmt::format("{}: its classifier is for other classes: {}", source, other),
                  "use finetune.classifier = \"new\", or pack the images with the classes in that order (--classes)");
  });
}

}  // namespace seer::run
