// SPDX-License-Identifier: Apache-2.0
// Options that several commands share, and what they mean.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seer/config/config.hpp"
#include "seer/data/pack.hpp"
#include "seer/eval/features.hpp"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace seer::app {

/// --set, for commands with a configuration file.
CLI::Option* add_set(CLI::App& command, std::vector<std::string>& set,
                     const char* help = "Override: section.key=value");
/// What becomes of precision.compute = "auto".
enum class AutoPrecision : bool { settle, keep };
/// Collective: rank 0 reads the file ("" = defaults only), all ranks parse the same text. Error(input), agreed.
config::Config load_config(const comm::Communicator& world, const std::string& path,
                           const std::vector<std::string>& overrides, AutoPrecision precision = AutoPrecision::settle);

/// --replace and --append, for commands that write shards.
void add_existing(CLI::App& command, data::Existing& existing);

/// For commands that compute features.
struct EvalChoices {
  std::string features = "trunk", device = "auto";
  std::int64_t batch = 32, resize = 256, crop = 224, recalibrate = 0, whole = 0;
  bool squash = false;
  bool operator==(const EvalChoices&) const = default;
};
void add_eval_choices(CLI::App& command, EvalChoices& choices);
data::EvalOptions reading_of(const EvalChoices& choices);

// The ending of an output file must not promise another format. Error(input), agreed.

/// `path` must end in `wanted` (".safetensors"), upper or lower case.
void require_ending(const std::string& path, const std::string& wanted);
/// `path` must not have the ending of another format than `written`.
void refuse_misleading(const std::string& path, const std::string& written);

}  // namespace seer::app
