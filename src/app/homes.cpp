// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>

#include "seer/app/command.hpp"
#include "seer/base/home.hpp"

namespace seer::app {

void expand_homes(CLI::App& command) {
  const auto expand = [](std::string& value) -> std::string {
    const auto whole = expand_home(value);
    if (!whole) return "no such user: " + value;
    value = *whole;
    return "";
  };
  for (auto* option : command.get_options()) {
    if (option->get_items_expected_max() > 0) option->transform(CLI::Validator(expand, ""));
  }
  for (auto* inner : command.get_subcommands({})) expand_homes(*inner);
}

}  // namespace seer::app
