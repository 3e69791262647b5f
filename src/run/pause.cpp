// SPDX-License-Identifier: Apache-2.0
#include "seer/run/pause.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <thread>

#include "seer/base/error.hpp"
#include "seer/comm/progress.hpp"

namespace seer::run {

Pause::Pause(const comm::Communicator& comm, const std::string& run_dir) : comm_(comm), sign_(run_dir + "/PAUSED") {
  comm::agree(comm, "reading SEER_PAUSE_AFTER", [&] {
    const char* const text = std::getenv("SEER_PAUSE_AFTER");
    if (!comm.is_root() || text == nullptr) return;
    const std::string_view digits = text;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), update_);
    if (error == std::errc() && end == digits.end() && update_ >= 0) return;
    throw Error(ExitCode::input, fmt::format("SEER_PAUSE_AFTER=\"{}\"; wanted the number of an update, or 0", text),
                "unset it: it is for tests");
  });
  comm.broadcast(&update_, sizeof update_);
}

void Pause::after(std::int64_t update) const {
  if (update != update_) return;
  std::string ranks;
  for (const auto& line : comm_.all_gather(fmt::format("{} {}\n", comm_.rank(), ::getpid()))) ranks += line;
  comm::agree(comm_, "pausing", [&] {
    if (!comm_.is_root()) return;
    std::error_code error;
    if (std::ofstream(sign_ + ".new") << ranks << std::flush) {
      std::filesystem::rename(sign_ + ".new", sign_, error);  // so that it appears whole
      if (!error) return;
    }
    throw Error(ExitCode::file, "cannot write " + sign_, "make the run folder writable");
  });
  for (std::error_code ignored; std::filesystem::exists(sign_, ignored);) {
    comm::tell_progress();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace seer::run
