// SPDX-License-Identifier: Apache-2.0
#include "seer/base/home.hpp"

#include <pwd.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>

namespace seer {

std::optional<std::string> expand_home(const std::string& path) {
  if (!path.starts_with('~')) return path;
  const auto end = std::min(path.find('/'), path.size());
  const auto user = path.substr(1, end - 1);
  const char* home = user.empty() ? std::getenv("HOME") : nullptr;
  if (home == nullptr || *home == 0) {
    const passwd* entry = user.empty() ? getpwuid(getuid()) : getpwnam(user.c_str());
    if (entry == nullptr) return std::nullopt;
    home = entry->pw_dir;
  }
  return home + path.substr(end);
}

bool names_variable(const std::string& path) {
  for (auto at = path.find('$'); at != std::string::npos; at = path.find('$', at + 1)) {
    const char next = at + 1 < path.size() ? path[at + 1] : ' ';
    if (next == '{' || next == '_' || std::isalpha(static_cast<unsigned char>(next)) != 0) return true;
  }
  return false;
}

}  // namespace seer
