// SPDX-License-Identifier: Apache-2.0
// What happens when a rank fails: agreement in set-up phases, die() in the step loop.
#include <fmt/format.h>

#include <exception>
#include <new>
#include <optional>
#include <span>
#include <string>

#include "seer/base/error.hpp"
#include "seer/base/error_stack.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/failure.hpp"
#include "seer/comm/progress.hpp"

namespace seer::comm {

void leave_trace(const std::string& message) {
  write_trace(message.c_str());
}

void leave_trace_of(const Error& error) {
  write_trace(error.message().c_str(), stack_of(error));
}

Error out_of_memory() {
  return Error(ExitCode::device, "out of memory", "use more ranks, a smaller batch or a smaller model");
}

void agree(const Communicator& comm, const std::string& name, const std::function<void()>& phase) {
  std::optional<Error> mine;
  try {
    phase();
  } catch (const Error& e) {
    mine = e;
  } catch (const std::bad_alloc&) {
    mine = out_of_memory();
  } catch (const std::exception& e) {
    mine = Error(ExitCode::internal, e.what());
  }
  // One reduction in the good case: the lowest failing rank, or size() if there is none.
  std::int64_t verdict[2] = {mine ? comm.rank() : comm.size(), mine ? -1 : 0};
  std::int64_t first = comm.all_reduce(verdict[0], Op::min);
  if (first == comm.size()) return;
  const std::int64_t failures = -comm.all_reduce(verdict[1], Op::sum);
  std::int64_t code = mine ? static_cast<std::int64_t>(mine->code()) : 0;
  std::string what = mine ? mine->what() : "", remedy = mine ? mine->remedy() : "";
  std::string place = mine ? mine->where() : "";
  const int root = static_cast<int>(first);
  comm.broadcast(&code, sizeof code, root);
  comm.broadcast(what, root);
  comm.broadcast(remedy, root);
  comm.broadcast(place, root);
  if (comm.size() > 1 && failures < comm.size()) {
    what += fmt::format(" (rank {}; {} of {} ranks failed in: {})", root, failures, comm.size(), name);
  }
  throw Error(static_cast<ExitCode>(code), what, remedy).at(place).as_agreed();
}

namespace {

[[noreturn]] void end_with(const std::string& message, int exit_code, std::span<void* const> frames) {
  begin_ending(exit_code);
  log::error(message);
  write_trace(message.c_str(), frames);
  end_all(exit_code);
}

}  // namespace

void die(const std::string& message, int exit_code) {
  end_with(message, exit_code, {});
}

void die_of(const Error& error) {
  end_with(error.message() + doing_text(), static_cast<int>(error.code()), stack_of(error));
}

}  // namespace seer::comm
