// SPDX-License-Identifier: Apache-2.0
// One kind of exception for everything a user, a file or a library can do wrong, and the program's exit codes.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>

namespace seer {

/// The program's exit codes (docs/operations.md).
enum class ExitCode : int {
  ok = 0,
  input = 2,     ///< command line or configuration
  file = 3,      ///< a file or data set
  numerics = 4,  ///< loss or gradients no longer finite
  device = 5,    ///< device, library or communication
  internal = 6,  ///< a broken invariant of our own
  requeue = 75,  ///< checkpoint written: please start again
};

/// An error with what its message must always hold: what happened (with the value found and the value wanted),
/// where in the source, and the remedy where one is known. Rank and host are added by whoever prints it.
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& what, std::string remedy = "",
        std::source_location where = std::source_location::current());

  ExitCode code() const { return code_; }
  const std::string& remedy() const { return remedy_; }
  /// "src/data/shard.cpp:88"
  const std::string& where() const { return where_; }
  /// what, remedy and place in one line, without rank and host.
  std::string message() const;
  /// The same error, told to have happened elsewhere (agreement over ranks passes places on).
  Error at(std::string where) const {
    Error moved = *this;
    moved.where_ = std::move(where);
    return moved;
  }
  /// True when every rank throws this same error at the same place, so that rank 0 may speak for all and everybody can
  /// end in order. False (the default): the other ranks may know nothing of it and wait in a collective.
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

/// Throws Error(internal) when an invariant of our own does not hold; kept in all builds.
inline void ensure(bool condition, const char* what, std::source_location where = std::source_location::current()) {
  if (!condition) throw Error(ExitCode::internal, what, "this is a defect of seer; please report it", where);
}

}  // namespace seer
