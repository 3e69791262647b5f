// SPDX-License-Identifier: Apache-2.0
// Options that all commands on features share.
#pragma once

#include <cstdint>
#include <string>

#include "seer/data/eval_reader.hpp"
#include "seer/eval/features.hpp"

namespace CLI {
class App;
}

namespace seer::app {

struct EvalChoices {
  std::string layer = "trunk", device = "auto";
  std::int64_t batch = 32, resize = 256, crop = 224, recalibrate = 0;
  bool operator==(const EvalChoices&) const = default;
};

void add_eval_choices(CLI::App& command, EvalChoices& choices);
eval::Layer layer_of(const EvalChoices& choices);
data::EvalOptions reading_of(const EvalChoices& choices);

}  // namespace seer::app
