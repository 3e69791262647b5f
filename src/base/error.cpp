// SPDX-License-Identifier: Apache-2.0
#include "seer/base/error.hpp"

#include <string_view>
#include <utility>

namespace seer {

Error::Error(ExitCode code, const std::string& what, std::string remedy, std::source_location where)
    : std::runtime_error(what), code_(code), remedy_(std::move(remedy)) {
  std::string_view file = where.file_name();
  // Paths are shown from the project's root, whatever folder it was built in.
  for (std::string_view root : {"src/", "include/seer/", "tests/"}) {
    if (auto at = file.rfind(root); at != std::string_view::npos) {
      file.remove_prefix(at);
      break;
    }
  }
  where_ = std::string(file) + ":" + std::to_string(where.line());
}

std::string Error::message() const {
  std::string text = what();
  if (!remedy_.empty()) text += "; " + remedy_;
  return text + " [" + where_ + "]";
}

}  // namespace seer
