// SPDX-License-Identifier: Apache-2.0
#include "seer/base/error.hpp"

#include <execinfo.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <string_view>
#include <utility>

#include "seer/base/error_stack.hpp"
#include "seer/base/open_files.hpp"

namespace seer {
namespace {

/// The stacks of the last errors; a new one overwrites the oldest.
struct Stacks {
  struct Entry {
    std::string what, where;
    std::array<void*, 48> frames{};
    int depth = 0;
  };
  std::mutex mutex;
  std::array<Entry, 16> entries;
  std::size_t made = 0;
};
Stacks& stacks() {
  static auto* const s = new Stacks;  // never destroyed: errors may be made until the process ends
  return *s;
}

void remember_stack(const std::string& what, const std::string& where) {
  auto& s = stacks();
  const std::lock_guard lock(s.mutex);
  auto& entry = s.entries[s.made++ % s.entries.size()];
  entry.what = what;
  entry.where = where;
  entry.depth = backtrace(entry.frames.data(), static_cast<int>(entry.frames.size()));
}

}  // namespace

Error::Error(ExitCode code, const std::string& what, std::string remedy, std::source_location where)
    : std::runtime_error(what), code_(code), remedy_(std::move(remedy)) {
  if (auto of_limit = open_files_remedy(what); !of_limit.empty()) remedy_ = std::move(of_limit);
  std::string_view file = where.file_name();
  // Show paths from the project's root, whatever folder it was built in.
  for (std::string_view root : {"src/", "include/seer/", "tests/"}) {
    if (auto at = file.rfind(root); at != std::string_view::npos) {
      file.remove_prefix(at);
      break;
    }
  }
  where_ = std::string(file) + ":" + std::to_string(where.line());
  remember_stack(what, where_);
}

std::vector<void*> stack_of(const Error& error) {
  auto& s = stacks();
  const std::lock_guard lock(s.mutex);
  const std::size_t known = std::min(s.made, s.entries.size());
  for (std::size_t back = 1; back <= known; ++back) {
    const auto& entry = s.entries[(s.made - back) % s.entries.size()];
    if (entry.what == error.what() && entry.where == error.where()) {
      return {entry.frames.begin(), entry.frames.begin() + entry.depth};
    }
  }
  return {};
}

std::string Error::message() const {
  std::string text = what();
  if (!remedy_.empty()) text += "; " + remedy_;
  return text + " [" + where_ + "]";
}

}  // namespace seer
