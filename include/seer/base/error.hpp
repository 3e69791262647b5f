// SPDX-License-Identifier: Apache-2.0
// One kind of exception for everything a user, a file or a library can do wrong, and the program's exit codes.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace seer {

/// The program's exit codes (docs/operations.md).
enum class ExitCode : int {
  ok = 0,
  input = 2,     ///< command line or configuration
  file = 3,      ///< a file or data set
  numerics = 4,  ///< loss or gradients no longer finite
  device = 5,    ///< device, library or communication
  internal = 6,  ///< a broken invariant in seer itself
  requeue = 75,  ///< checkpoint written: please start again
};

/// Holds what the error's message needs: what happened (with the value found and the value wanted), where in the
/// source, and the remedy if one is known. The code that prints it adds rank and host.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what, std::string remedy = "",
        std::source_location where = std::source_location::current());

  ExitCode code() const { return code_; }
  const std::string& remedy() const { return remedy_; }
  /// "src/data/shard.cpp:88"
  const std::string& where() const { return where_; }
  /// Returns what, remedy and place in one line, without rank and host.
  std::string message() const;
  /// Returns the same error with another place in the source, e.g. that of the rank which failed.
  Error at(std::string where) const {
    Error moved = *this;
    moved.where_ = std::move(where);
    return moved;
  }
  /// True if every rank throws this same error at the same place, so rank 0 prints it for all, and all ranks shut down
  /// in order. False (the default): other ranks may not know of the error and may wait in a collective.
  bool agreed() const { return agreed_; }
  Error as_agreed() const {
    Error same = *this;
    same.agreed_ = true;
    return same;
  }

 private:
  ExitCode code_;
  std::string remedy_;
  std::string where_;
  bool agreed_ = false;
};

/// Returns the call stack at which the newest error with this text and place was created, in any thread: return
/// addresses, innermost first. Empty if that error is older than the last 16, because only those are kept.
std::vector<void*> stack_of(const Error& error);

/// Throws Error(internal) if `condition` is false. All builds keep this check.
inline void ensure(bool condition, const char* what, std::source_location where = std::source_location::current()) {
  if (!condition) throw Error(ExitCode::internal, what, "this is a defect of seer; please report it", where);
}

}  // namespace seer
