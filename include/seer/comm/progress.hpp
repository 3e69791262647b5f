// SPDX-License-Identifier: Apache-2.0
// What this rank is doing: update, phase, the files it reads and its last collectives. Told by those who do it, read by
// the watchdog and by error messages. Telling costs a few relaxed stores, without locks or allocation, and may be done
// by any thread; whatever is told counts as progress.
#pragma once

#include <cstdint>
#include <string>

namespace seer::comm {

/// Which limit of silence applies.
enum class Stage : std::uint8_t { set_up, update, checkpoint };

struct Doing {
  const char* phase = "";  ///< a literal, or of a text that is never freed
  Stage stage = Stage::set_up;
};
void tell_doing(Doing doing);
Doing doing_now();
/// Sets what the process is doing to "update `update`" (0-based), until the next call of a function here.
void tell_update(std::int64_t update);
/// A part of a long phase is done, a segment of the network say.
void tell_progress();
/// "; in update 17, backward"; before the first update "; during set-up". "" if nothing was set.
std::string doing_text();

/// A read that may hang, for as long as it lives. `path` outlives it.
class Reading {
 public:
  explicit Reading(const std::string& path);
  ~Reading();
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;

 private:
  std::size_t place_;
};

}  // namespace seer::comm
