// SPDX-License-Identifier: Apache-2.0
// What happens when a rank fails: agreement in set-up phases, die() in the step loop.
#include <execinfo.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <optional>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/communicator.hpp"

namespace seer::comm {
namespace {

std::string trace_folder;

}  // namespace

void leave_trace(const std::string& message) {
  if (trace_folder.empty()) return;
  const std::string path = fmt::format("{}/error.{}.txt", trace_folder, log::rank());
  std::FILE* file = std::fopen(path.c_str(), "w");
  if (file == nullptr) return;
  std::fprintf(file, "rank %d of %d on %s\n%s\n\nstack:\n", log::rank(), log::ranks(), log::host_name().c_str(),
               message.c_str());
  std::fflush(file);
  void* frames[64];
  const int depth = backtrace(frames, 64);
  backtrace_symbols_fd(frames, depth, fileno(file));
  std::fclose(file);
}

void agree(const Communicator& comm, const std::string& name, const std::function<void()>& phase) {
  std::optional<Error> mine;
  try {
    phase();
  } catch (const Error& e) {
    mine = e;
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

void leave_traces_in(const std::string& run_dir) {
  trace_folder = run_dir;
}

void die(const std::string& message, int exit_code) {
  // Aborting can hang when other ranks are stuck: then the process ends by itself.
  alarm(30);
  log::error(message);
  leave_trace(message);
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized != 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

}  // namespace seer::comm
