// SPDX-License-Identifier: Apache-2.0
#include "seer/base/error.hpp"

#include <execinfo.h>

#include <algorithm>
#include <array>
#include <deque>
#include <mutex>
#include <string_view>

#include "seer/base/streams.hpp"

namespace seer {
namespace {

/// The stacks of the last errors, newest first.
struct Stacks {
  struct Entry {
    std::string what, where;
    std::vector<void*> frames;
  };
  std::mutex mutex;
  std::deque<Entry> entries;
};
Stacks& stacks() {
  static auto* const s = new Stacks;  // never destroyed: errors may be made until the process ends
  return *s;
}

void remember_stack(const std::string& what, const std::string& where) {
  std::array<void*, 48> frames;
  const int depth = backtrace(frames.data(), static_cast<int>(frames.size()));
  auto& s = stacks();
  const std::lock_guard lock(s.mutex);
  if (s.entries.size() == 16) s.entries.pop_back();
  s.entries.push_front({what, where, std::vector<void*>(frames.begin(), frames.begin() + depth)});
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
  const auto found = std::ranges::find_if(
      s.entries, [&](const auto& entry) { return entry.what == error.what() && entry.where == error.where(); });
  return found == s.entries.end() ? std::vector<void*>() : found->frames;
}

std::string Error::message() const {
  std::string text = what();
  if (!remedy_.empty()) text += "; " + remedy_;
  return text + " [" + where_ + "]";
}

}  // namespace seer
