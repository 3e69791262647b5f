// SPDX-License-Identifier: Apache-2.0
#pragma GCC diagnostic ignored "-Wnull-dereference"  // false alarm of g++ 12 where CLI11 moves a std::function
#include <CLI/CLI.hpp>
#include <filesystem>

#include "seer/app/command.hpp"
#include "seer/base/home.hpp"

namespace seer::app {

void expand_homes(CLI::App& command) {
  const auto expand = [](const std::string& value) {
    auto whole = expand_home(value);
    if (!whole) throw CLI::ValidationError("no such user: " + value);
    if (names_variable(value) && !std::filesystem::exists(value)) {
      throw CLI::ValidationError("found \"" + value + "\": a variable is not replaced here; let the shell do it");
    }
    return *whole;
  };
  for (auto* option : command.get_options()) {
    if (option->get_items_expected_max() > 0 && option->get_lnames() != std::vector<std::string>{"set"})
      option->transform(expand, "");
  }
  for (auto* inner : command.get_subcommands({})) expand_homes(*inner);
}

}  // namespace seer::app
