// SPDX-License-Identifier: Apache-2.0
#include "seer/app/config_file.hpp"

#include <fmt/format.h>

#include <fstream>
#include <sstream>

#include "seer/base/error.hpp"

namespace seer::app {

config::Config load_config(const comm::Communicator& world, const std::string& path,
                           const std::vector<std::string>& overrides) {
  std::string resolved;
  comm::agree(world, "reading the configuration", [&] {
    if (!world.is_root()) return;
    if (path.empty()) {
      resolved = config::to_toml(config::parse("", "", overrides));
      return;
    }
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    if (!file || (file.peek(), file.bad())) {  // opening a folder succeeds; reading from it does not
      throw Error(ExitCode::input, fmt::format("{}: cannot read the configuration file", path),
                  "check the path; inputs/ holds examples");
    }
    file.clear();
    content << file.rdbuf();
    resolved = config::to_toml(config::parse(content.str(), path, overrides));
  });
  world.broadcast(resolved);  // paths are the root's: the home folder may differ on other nodes
  return config::parse_resolved(resolved, path);
}

}  // namespace seer::app
