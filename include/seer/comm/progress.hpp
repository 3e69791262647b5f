// SPDX-License-Identifier: Apache-2.0
// What this rank is doing: update, phase, the files it reads and its last collectives. The code that does the work
// reports it; the watchdog and error messages read it. A report costs a few stores (Reading and collectives also take
// a short lock), allocates nothing, and may come from any thread. Every report counts as progress.
#pragma once

#include <mpi.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

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

// The last collectives: which one this rank is in, and how many came before on each communicator.

/// A communicator as the watchdog sees it. All its ranks have the same `members` and `number`, and count the same
/// collectives, so that two ranks' counts can be compared. Never freed: slots of the ring point to it.
struct Trace {
  std::vector<int> members;  ///< ranks of the world, in the communicator's order
  int number = 0;            ///< index among the communicators with these members, in order of creation
  bool in_use = true;        ///< false: its communicator is gone
  std::atomic<const char*> name{""};
  std::atomic<std::int64_t> entered{0}, left{0};
  // The last collective entered:
  std::atomic<const char*> kind{""};
  std::atomic<std::int64_t> bytes{0}, entered_ns{0};
};

/// Returns a new trace, or reuses that of a destroyed communicator with the same members. Its counts then go on, on all
/// ranks alike.
Trace* trace_of(MPI_Comm comm);
void rename(Trace* trace, const std::string& name);
void release(Trace* trace);

/// A collective that was entered. One thread at a time enters collectives of a communicator. Any thread may report that
/// one was left, and several may be running: on a device they end in the order in which they began.
struct OpenMark {
  Trace* trace = nullptr;
  std::uint64_t ticket = 0;
  std::int64_t sequence = 0;  ///< index among the collectives of its communicator
};
/// A null trace records nothing.
OpenMark open_mark(Trace* trace, const char* kind, std::size_t bytes);
void close_mark(const OpenMark& mark);

/// Marks this rank as inside a collective for as long as the object exists.
class Mark {
 public:
  Mark(Trace* trace, const char* kind, std::size_t bytes) : mark_(open_mark(trace, kind, bytes)) {}
  ~Mark() { close_mark(mark_); }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

 private:
  OpenMark mark_;
};

/// Copies for the watchdog's thread. Times are nanoseconds of the steady clock; left_ns is 0 while inside.
struct Passed {
  const char* name = "";
  const char* kind = "";
  std::int64_t sequence = 0, bytes = 0, entered_ns = 0, left_ns = 0;
};
std::vector<Passed> last_collectives();     ///< oldest first
std::vector<const Trace*> traces_in_use();  ///< that had at least one collective
std::uint64_t progress_count();             ///< grows with every report of progress
std::int64_t told_update();                 ///< -1: none yet
std::string reading_now();                  ///< path of the oldest running read, or ""
std::int64_t steady_ns();                   ///< async-signal-safe

}  // namespace seer::comm
