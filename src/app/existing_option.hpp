// SPDX-License-Identifier: Apache-2.0
// --replace and --append, for the commands that write shards.
#pragma once

#include <CLI/CLI.hpp>

#include "seer/data/pack.hpp"

namespace seer::app {

inline void add_existing(CLI::App& command, data::Existing& existing) {
  auto* const replace = command.add_flag_callback(
      "--replace", [&existing] { existing = data::Existing::replace; },
      "Shards of this name that the folder holds go when the new ones are complete");
  command
      .add_flag_callback(
          "--append", [&existing] { existing = data::Existing::append; },
          "They stay, and the new shards get the numbers behind theirs")
      ->excludes(replace);
}

}  // namespace seer::app
