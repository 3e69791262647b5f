// SPDX-License-Identifier: Apache-2.0
// The process that uses a run folder, and the text of run_dir/lock.
#include "lock_owner.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "seer/base/log.hpp"

namespace seer::run {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// Field 22 of /proc/<pid>/stat; -1 if there is no such process. The second field, a name in brackets, may contain
/// anything.
std::int64_t start_ticks(std::int64_t pid) {
  const auto text = first_line(fmt::format("/proc/{}/stat", pid));
  auto at = text.rfind(')');
  if (at == std::string::npos) return -1;
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  std::int64_t ticks = -1;
  if (at != std::string::npos) std::from_chars(text.data() + at + 1, text.data() + text.size(), ticks);
  return ticks;
}

}  // namespace

LockOwner LockOwner::self() {
  LockOwner me;
  me.host = log::host_name();
  me.pid = ::getpid();
  char name_space[64] = "";
  [[maybe_unused]] const auto length = ::readlink("/proc/self/ns/pid", name_space, sizeof name_space - 1);
  me.machine = first_line("/proc/sys/kernel/random/boot_id") + " " + name_space;
  me.ticks = start_ticks(me.pid);
  me.job = environment("SLURM_JOB_ID");
  me.restart = std::atoll(environment("SLURM_RESTART_COUNT").c_str());
  me.started = static_cast<std::int64_t>(std::time(nullptr));
  std::random_device random;
  me.nonce = fmt::format("{:08x}{:08x}", random(), random());
  return me;
}

std::string LockOwner::describe() const {
  if (pid == 0) return "an unknown owner";
  return fmt::format("process {} on {}{}, started {:%Y-%m-%d %H:%M:%S}", pid, host, job.empty() ? "" : ", job " + job,
                     fmt::localtime(static_cast<std::time_t>(started)));
}

bool is_dead(const LockOwner& owner, const LockOwner& asking) {
  if (owner.machine != asking.machine) {
    // A later start of the same job: Slurm has ended the earlier one.
    return !owner.job.empty() && owner.job == asking.job && owner.restart < asking.restart;
  }
  if (::kill(static_cast<pid_t>(owner.pid), 0) != 0 && errno == ESRCH) return true;
  return start_ticks(owner.pid) != owner.ticks;
}

std::string to_text(const LockOwner& owner) {
  const nlohmann::ordered_json object = {
      {"host", owner.host},       {"pid", owner.pid},         {"job", owner.job},     {"restart", owner.restart},
      {"started", owner.started}, {"machine", owner.machine}, {"ticks", owner.ticks}, {"nonce", owner.nonce}};
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::optional<LockOwner> from_text(const std::string& text) {
  if (text.find_first_not_of(" \n") == std::string::npos) return std::nullopt;
  try {
    const auto object = nlohmann::json::parse(text);
    LockOwner owner;
    owner.host = object.at("host");
    owner.pid = object.at("pid");
    owner.job = object.at("job");
    owner.restart = object.at("restart");
    owner.started = object.at("started");
    owner.machine = object.at("machine");
    owner.ticks = object.at("ticks");
    owner.nonce = object.at("nonce");
    return owner;
  } catch (const nlohmann::json::exception&) {
    return LockOwner{};  // someone's, in a format that we do not know
  }
}

}  // namespace seer::run
