// SPDX-License-Identifier: Apache-2.0
// What this rank is doing: update, phase, the files it reads and its last collectives. The code that does the work
// reports it; the watchdog and error messages read it. A report costs a few relaxed stores, without allocation (only
// Reading takes a lock), and may come from any thread. Every report counts as progress.
#pragma once

#include <cstdint>
#include <string>

namespace seer::comm {

/// Which of the watchdog's limits applies.
enum class Stage : std::uint8_t { set_up, update, checkpoint };

struct Doing {
  const char* phase = "";  ///< a literal, or text that is never freed
  Stage stage = Stage::set_up;
};
void tell_doing(Doing doing);
Doing doing_now();
/// Sets what the process is doing to "update `update`" (0-based), until the next call of a function here.
void tell_update(std::int64_t update);
/// Reports progress within a long phase, e.g. a segment of the network.
void tell_progress();
/// Returns "; in update 17, backward"; before the first update "; during set-up"; "" if nothing was set.
std::string doing_text();

/// Marks a read that may hang, for as long as the object exists. `path` must outlive it.
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
