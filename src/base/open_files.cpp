// SPDX-License-Identifier: Apache-2.0
#include "seer/base/open_files.hpp"

#include <sys/resource.h>

#include <filesystem>

namespace seer {
namespace {

rlimit limit_now() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) limit = {1024, 1024};
  return limit;
}

}  // namespace

void raise_open_file_limit() {
  rlimit limit = limit_now();
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::size_t spare_open_files() {
  namespace fs = std::filesystem;
  std::size_t open = 0;
  std::error_code error;
  for (fs::directory_iterator file("/proc/self/fd", error), end; !error && file != end; file.increment(error)) ++open;
  const auto limit = static_cast<std::size_t>(limit_now().rlim_cur);
  return limit > open ? limit - open : 0;
}

std::string open_files_remedy(const std::string& error) {
  if (error.find("Too many open files in system") != std::string::npos)  // ENFILE
    return "the machine's limit on open files (fs.file-max) is reached: run fewer processes on it";
  if (error.find("Too many open files") == std::string::npos) return "";
  return "the limit on open files of a process is " + std::to_string(limit_now().rlim_cur) +
         " here (ulimit -Hn): raise it where the program is started (limits.conf, LimitNOFILE, --ulimit nofile)";
}

}  // namespace seer
