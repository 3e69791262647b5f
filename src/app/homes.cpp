// SPDX-License-Identifier: Apache-2.0
#pragma GCC diagnostic ignored "-Wnull-dereference"  // false alarm of g++ 12 where CLI11 moves a std::function
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "seer/app/command.hpp"
#include "seer/base/home.hpp"

namespace seer::app {

void expand_homes(CLI::App& command) {
  const auto expand = [](const std::string& value) {
    std::string whole;  // shards may be a comma-separated list
    for (std::size_t begin = 0; begin <= value.size();) {
      const auto end = std::min(value.find(',', begin), value.size());
      const auto part = expand_home(value.substr(begin, end - begin));
      if (!part) throw CLI::ValidationError("no such user: " + value);
      whole += *part + (end < value.size() ? "," : "");
      begin = end + 1;
    }
    if (names_variable(value) && !std::filesystem::exists(value)) {
      throw CLI::ValidationError("found \"" + value + "\": a variable is not replaced here; let the shell do it");
    }
    return whole;
  };
  for (auto* option : command.get_options()) {
    if (option->get_items_expected_max() > 0 && option->get_lnames() != std::vector<std::string>{"set"})
      option->transform(expand, "");
  }
  for (auto* inner : command.get_subcommands({})) expand_homes(*inner);
}

}  // namespace seer::app
