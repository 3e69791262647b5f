// SPDX-License-Identifier: Apache-2.0
#include "seer/run/run_lock.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/thread.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::run {
namespace {

using SteadyClock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// The text is padded to this length, so that a new owner's text replaces the old one in one write.
constexpr std::size_t kTextBytes = 512;
constexpr milliseconds kLookAgain{1000};  // maximum age of a run's knowledge between updates

/// State of the lock file at its path.
struct Sight {
  bool there = false;
  std::string text;
  ino_t inode = 0;
  std::int64_t touched_ns = 0;  ///< since 1970
};

std::int64_t nanoseconds(const timespec& time) {
  return std::int64_t{1'000'000'000} * time.tv_sec + time.tv_nsec;
}

/// Opens the file each time: only then do network file systems show others' writes. Nothing if the state is unknown.
std::optional<Sight> look_at(const std::string& path) {
  Sight out;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return errno == ENOENT || errno == ENOTDIR ? std::optional(out) : std::nullopt;
  std::array<char, 2 * kTextBytes> text{};
  struct stat info {};
  const auto length = ::pread(descriptor, text.data(), text.size(), 0);
  const bool known = length >= 0 && ::fstat(descriptor, &info) == 0;
  ::close(descriptor);
  if (!known) return std::nullopt;
  out.there = true;
  out.text.assign(text.data(), static_cast<std::size_t>(length));
  out.inode = info.st_ino;
  out.touched_ns = nanoseconds(info.st_mtim);
  return out;
}

/// Age by the clock of the file system, which may differ from ours: compares with a file made now.
milliseconds age_of(const Sight& seen, const std::string& run_dir, const std::string& nonce) {
  const auto path = fmt::format("{}/.lock-{}", run_dir, nonce);
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor >= 0) {
    struct stat info {};
    if (::write(descriptor, "x", 1) == 1 && ::fstat(descriptor, &info) == 0) now = info.st_mtim;
    ::close(descriptor);
    ::unlink(path.c_str());
  }
  return milliseconds((nanoseconds(now) - seen.touched_ns) / 1'000'000);
}

/// True if only one kernel uses the file system: then every process sees its flock.
bool is_local(int descriptor) {
  struct statfs info {};
  if (::fstatfs(descriptor, &info) != 0) return false;
  constexpr std::uint64_t kLocal[] = {
      0xEF53 /* ext */,         0x58465342 /* xfs */, 0x9123683E /* btrfs */, 0x01021994 /* tmpfs */,
      0x794C7630 /* overlay */, 0x2FC12FC1 /* zfs */, 0xF2F52010 /* f2fs */,  0x858458F6 /* ramfs */};
  const auto type = static_cast<std::uint64_t>(info.f_type) & 0xFFFFFFFFU;
  return std::ranges::find(kLocal, type) != std::end(kLocal);
}

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

/// Field 22 of /proc/<pid>/stat; -1 without such a process. The second field, a name in brackets, may hold anything.
std::int64_t start_ticks(std::int64_t pid) {
  const auto text = first_line(fmt::format("/proc/{}/stat", pid));
  auto at = text.rfind(')');
  if (at == std::string::npos) return -1;
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = text.find(' ', at + 1);
  std::int64_t ticks = -1;
  if (at != std::string::npos) std::from_chars(text.data() + at + 1, text.data() + text.size(), ticks);
  return ticks;
}

/// Calls visit(key, member) for the fields of an owner, in the order of the file.
void visit_fields(auto& owner, auto visit) {
  visit("host", owner.host);
  visit("pid", owner.pid);
  visit("job", owner.job);
  visit("restart", owner.restart);
  visit("started", owner.started);
  visit("machine", owner.machine);
  visit("ticks", owner.ticks);
  visit("nonce", owner.nonce);
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
  me.nonce = checkpoint::random_name();
  return me;
}

std::string LockOwner::describe() const {
  if (pid == 0) return "an unknown owner";
  return fmt::format("process {} on {}{}, started {:%Y-%m-%d %H:%M:%S}", pid, host, job.empty() ? "" : ", job " + job,
                     fmt::localtime(static_cast<std::time_t>(started)));
}

bool LockOwner::is_dead(const LockOwner& asking) const {
  if (machine != asking.machine) {
    // A later start of the same job: Slurm has ended the earlier one.
    return !job.empty() && job == asking.job && restart < asking.restart;
  }
  if (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) return true;
  return start_ticks(pid) != ticks;
}

std::string LockOwner::to_text() const {
  nlohmann::ordered_json object;
  visit_fields(*this, [&](const char* key, const auto& value) { object[key] = value; });
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

std::optional<LockOwner> LockOwner::from_text(const std::string& text) {
  if (text.find_first_not_of(" \n") == std::string::npos) return std::nullopt;
  try {
    const auto object = nlohmann::json::parse(text);
    LockOwner owner;
    visit_fields(owner, [&](const char* key, auto& value) { object.at(key).get_to(value); });
    return owner;
  } catch (const nlohmann::json::exception&) {
    return LockOwner{};  // someone's, in a format that we do not know
  }
}

struct RunLock::Impl {
  Impl(std::string run_dir_in, Options options_in)
      : run_dir(std::move(run_dir_in)), path(run_dir + "/lock"), options(std::move(options_in)) {
    mine = options.self.to_text();
    mine.insert(mine.size() - 1, kTextBytes - std::min(kTextBytes, mine.size()), ' ');
    try {
      take();
    } catch (...) {
      if (descriptor >= 0) ::close(descriptor);
      throw;
    }
    // Only the thread that runs the loop takes signals.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    beating = start_thread("the thread of the run folder's lock", [this] {
      std::unique_lock lock(mutex);
      while (!wake.wait_for(lock, options.beat, [this] { return ended; })) {
        if (state != State::ours) continue;
        state = state_now();
        if (state == State::ours) ::futimens(descriptor, nullptr);
      }
    });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      ended = true;
    }
    wake.notify_all();
    beating.join();
    // Released means empty. Leave it if another run has it by now.
    if (const auto seen = look_at(path); seen && seen->text == mine) [[maybe_unused]]
      const int emptied = ::ftruncate(descriptor, 0);
    ::close(descriptor);
  }

  void take() {
    open_locked();
    const auto seen = look_at(path);
    if (const auto owner = LockOwner::from_text(seen ? seen->text : "")) {
      // Its flock is gone, so the owner is dead, unless it may run where flock does not reach.
      if (!exclusive && !owner->is_dead(options.self)) wait_for_its_death(*seen, *owner);
      log::warn(fmt::format("{}: takes over the lock of {}, which has ended; its last sign of life was {} s ago", path,
                            owner->describe(), age_of(*seen, run_dir, options.self.nonce).count() / 1000));
    }
    written = write_text();
    if (!written && !exclusive)
      throw Error(ExitCode::file, fmt::format("{} cannot be written: {}", path, std::strerror(errno)),
                  "log.run_dir must be a writable folder with space left");
    if (!written) log::warn(fmt::format("{}: this run cannot write its name there: {}", path, std::strerror(errno)));
    if (exclusive) return;
    // Others may have found the lock free at the same moment: the last one to write keeps it.
    std::this_thread::sleep_for(options.settle);
    if (const auto now = look_at(path); !now || now->text != mine) refuse(now.value_or(Sight{}));
  }

  /// Opens the file, and locks it if possible. Opens it again if it was replaced meanwhile.
  void open_locked() {
    for (;;) {
      descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
      if (descriptor < 0)
        throw Error(ExitCode::file, fmt::format("{}: {}", path, std::strerror(errno)),
                    "set log.run_dir to a folder you may write to");
      exclusive = false;
      if (options.use_flock && ::flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        exclusive = is_local(descriptor);
      else if (options.use_flock && errno == EWOULDBLOCK)
        refuse(look_at(path).value_or(Sight{}));
      struct stat info {};
      const auto seen = look_at(path);
      if (::fstat(descriptor, &info) != 0 || !seen || (seen->there && seen->inode == info.st_ino)) return;
      ::close(descriptor);
      descriptor = -1;
    }
  }

  /// Only the heartbeat can tell whether the owner lives. If the file changes while we look, it does.
  void wait_for_its_death(const Sight& first, const LockOwner& owner) const {
    const auto age = age_of(first, run_dir, options.self.nonce);
    if (age >= options.stale) return;
    log::info(
        fmt::format("{} is locked by {}, which gave its last sign of life {} s ago: waiting up to {} s for another one",
                    run_dir, owner.describe(), age.count() / 1000, options.stale.count() / 1000));
    const auto began = SteadyClock::now();
    while (SteadyClock::now() - began < options.stale) {
      std::this_thread::sleep_for(options.beat / 4);
      if (const auto now = look_at(path); now && (now->text != first.text || now->touched_ns != first.touched_ns)) {
        if (LockOwner::from_text(now->text)) refuse(*now);
        return;  // released
      }
    }
  }

  [[noreturn]] void refuse(Sight seen) const {
    // The owner may have the lock and not have written its name yet.
    for (int i = 0; i < 20 && !LockOwner::from_text(seen.text); ++i) {
      std::this_thread::sleep_for(milliseconds(100));
      seen = look_at(path).value_or(Sight{});
    }
    const auto owner = LockOwner::from_text(seen.text).value_or(LockOwner{});
    const auto age = seen.there ? age_of(seen, run_dir, options.self.nonce).count() / 1000 : 0;
    throw Error(ExitCode::input,
                fmt::format("another run uses {}: {}, last sign of life {} s ago", run_dir, owner.describe(),
                            std::max<std::int64_t>(age, 0)),
                "wait for it or stop it, or choose another log.run_dir");
  }

  bool write_text() const {
    return ::pwrite(descriptor, mine.data(), mine.size(), 0) == static_cast<ssize_t>(mine.size()) &&
           ::ftruncate(descriptor, static_cast<off_t>(mine.size())) == 0;
  }

  enum class State : int { ours, vanished, lost };

  State state_now() {
    looked = SteadyClock::now().time_since_epoch().count();
    const auto seen = look_at(path);
    if (!seen || !written) return State::ours;  // no answer from the file system: nothing has changed
    struct stat info {};
    if (!seen->there) return State::vanished;
    if (seen->text != mine) return State::lost;
    return ::fstat(descriptor, &info) == 0 && info.st_ino != seen->inode ? State::vanished : State::ours;
  }

  std::string run_dir, path;
  Options options;
  std::string mine;  ///< text of the file while we own it
  int descriptor = -1;
  bool exclusive = false;  ///< flock keeps out everyone
  bool written = false;
  std::atomic<State> state{State::ours};
  std::atomic<SteadyClock::rep> looked{SteadyClock::now().time_since_epoch().count()};
  std::mutex mutex;
  std::condition_variable wake;
  bool ended = false;
  std::thread beating;
};

RunLock::RunLock(const std::string& run_dir, const Options& options)
    : impl_(std::make_unique<Impl>(run_dir, options)) {}

RunLock::~RunLock() = default;

bool RunLock::vanished() const {
  auto& lock = *impl_;
  const SteadyClock::duration silent(SteadyClock::now().time_since_epoch().count() - lock.looked);
  if (silent > std::min<SteadyClock::duration>(2 * lock.options.beat, kLookAgain)) lock.state = lock.state_now();
  if (lock.state == Impl::State::lost) {
    const auto seen = look_at(lock.path).value_or(Sight{});
    const auto owner = LockOwner::from_text(seen.text);
    throw Error(ExitCode::input,
                fmt::format("{} is no longer this run's: {} has taken over its lock", lock.run_dir,
                            owner ? owner->describe() : "another run, which has ended,"),
                "this run stood still or was cut off for too long; its updates since its last checkpoint are lost");
  }
  return lock.state == Impl::State::vanished;
}

void RunLock::retake() {
  auto& lock = *impl_;
  const std::lock_guard guard(lock.mutex);
  ::close(lock.descriptor);
  lock.open_locked();
  const auto seen = look_at(lock.path);
  if (seen && seen->text != lock.mine && LockOwner::from_text(seen->text)) lock.refuse(*seen);
  lock.written = lock.write_text();
  lock.state = Impl::State::ours;
}

}  // namespace seer::run
