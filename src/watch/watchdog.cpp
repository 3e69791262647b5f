// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/watchdog.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/thread.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/ring.hpp"
#include "seer/comm/stack.hpp"
#include "standing.hpp"

namespace seer::watch {
namespace {

namespace fs = std::filesystem;
constexpr const char* kRemedy =
    "see hang/ in the run folder for every rank's last collectives and stack, look at that node, and start again: the "
    "run goes on from its newest checkpoint";

double shortest(const SilenceLimits& limits) {
  double out = 0;
  for (const double s : {limits.set_up_s, limits.update_s, limits.checkpoint_s}) {
    if (s > 0 && (out == 0 || s < out)) out = s;
  }
  return out;
}

double seconds_since(std::int64_t ns) {
  return static_cast<double>(comm::steady_ns() - ns) * 1e-9;
}

std::string read_file(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

/// Writes to another name first, so that readers see the whole file or nothing.
void write_file(const std::string& path, const std::string& text) {
  const std::string unfinished = path + ".tmp";
  std::ofstream file(unfinished);
  file << text;
  file.close();
  std::error_code ignored;  // if it fails, this looks like a rank that does not answer
  if (file) fs::rename(unfinished, path, ignored);
}

/// Writes in place, without a rename: on NFS, other nodes are sure to see changes only of a file that they opened
/// before.
void write_in_place(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
}

// For the alarm that ends the process if the run folder's file system blocks this thread. It takes two alarms without
// progress, since the first may come from a process that was suspended for longer.
std::atomic<std::uint64_t> count_at_alarm{0};
std::atomic<int> strikes{0};
bool spare_at_alarm() {
  const auto count = comm::progress_count();
  if (count_at_alarm.exchange(count) != count) strikes = 0;
  return ++strikes < 2;
}

std::string ring_text() {
  std::string text = "\nlast collectives, newest last:\n";
  for (const auto& p : comm::last_collectives()) {
    const auto took = p.left_ns == 0 ? std::string("not left")
                                     : fmt::format("{:.3f} ms", static_cast<double>(p.left_ns - p.entered_ns) * 1e-6);
    text += fmt::format("  {:.3f} s ago: {} {} of \"{}\", {} bytes, {}\n", seconds_since(p.entered_ns), p.kind,
                        p.sequence, p.name, p.bytes, took);
  }
  return text;
}

}  // namespace

struct Watchdog::Impl {
  Impl(const comm::Communicator& world, const std::string& run_dir, SilenceLimits limits_in)
      : limits(limits_in), folder(run_dir + "/hang"), rank(world.rank()) {
    comm::agree(world, "emptying " + folder, [&] {
      if (!world.is_root()) return;
      std::error_code error;
      fs::remove_all(folder, error);
      if (!error) fs::create_directories(folder, error);
      if (!error) write_in_place(question_path(), "");
      if (error) {
        throw Error(ExitCode::file, fmt::format("{}: {}", folder, error.message()),
                    "make the run folder writable, or switch the watchdog off (log.hang_seconds = 0 and the like)");
      }
    });
    hosts = world.all_gather(log::host_name());
    poll_s = std::clamp(shortest(limits) / 8, 0.1, 5.0);
    grace_s = std::clamp(shortest(limits) / 5, 3.0, 60.0);
    comm::prepare_stacks();
    watched = pthread_self();
    seen = comm::progress_count();
    // Stop requests and alarms go to the other threads; a crash in this one must still be caught.
    sigset_t all, before;
    sigfillset(&all);
    for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, signal);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread = start_thread("the watchdog", [this] { loop(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    thread.join();
    comm::go_on_living();
  }

  /// Returns false if the watchdog must end.
  bool sleep(double seconds) {
    std::unique_lock lock(mutex);
    return !changed.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return stop; });
  }

  void loop() {
    while (sleep(poll_s)) {
      listen();
      arm(limit_s());
      auto question = asked();
      if (question.empty() && over_limit()) question = ask();
      if (question.empty()) continue;
      answer(question);
      answered = question;
      silent_s = 0;
      last_ns = comm::steady_ns();
    }
  }

  /// Counts silence only while this thread runs: the time in which the whole job or the node was suspended does not
  /// count.
  void listen() {
    const auto now = comm::steady_ns(), count = static_cast<std::int64_t>(comm::progress_count());
    const double passed = static_cast<double>(now - last_ns) * 1e-9;
    last_ns = now;
    silent_s = static_cast<std::uint64_t>(count) == seen ? silent_s + std::min(passed, 2 * poll_s) : 0;
    seen = static_cast<std::uint64_t>(count);
  }

  double limit_s() const {
    switch (comm::doing_now().stage) {
      case comm::Stage::set_up:
        return limits.set_up_s;
      case comm::Stage::update:
        return limits.update_s;
      case comm::Stage::checkpoint:
        return limits.checkpoint_s;
    }
    return 0;
  }
  bool over_limit() const { return limit_s() > 0 && silent_s >= limit_s(); }

  std::string question_path() const { return folder + "/question"; }
  std::string answer_path(int r) const { return fmt::format("{}/{}.txt", folder, r); }

  /// Returns the question if this rank has not answered it yet, else "".
  std::string asked() const {
    const auto text = read_file(question_path());
    return text == answered ? "" : text;
  }

  /// Asks all ranks. If several ranks ask at once, one question is left, and all answer that one.
  std::string ask() {
    const auto mine = fmt::format("rank-{}-{}", rank, comm::steady_ns());
    std::error_code ignored;
    fs::create_directories(folder, ignored);
    write_in_place(question_path(), mine);
    sleep(std::min(poll_s, 0.5));
    const auto text = asked();
    return text.empty() ? mine : text;
  }

  /// Sets the alarm, in case the file system blocks this thread. The alarm then prints what is known and ends this
  /// rank.
  void arm(double after_s) {
    comm::go_on_living();  // no alarm while the words change
    if (limit_s() <= 0) return;
    last_words =
        fmt::format("error: {}: no progress for over {:.0f} s{}, and the run folder does not answer either; {}\n",
                    comm::identity(), limit_s(), comm::doing_text(), kRemedy);
    strikes = 0;
    count_at_alarm = comm::progress_count();
    comm::end_in(static_cast<unsigned>(after_s + 4 * grace_s) + comm::kAbort_s, static_cast<int>(ExitCode::device),
                 last_words.c_str(), &spare_at_alarm);
  }

  Standing standing(const std::string& question) const {
    Standing s;
    s.question = question;
    s.rank = rank;
    s.host = log::host_name();
    s.update = comm::told_update();
    s.phase = comm::doing_now().phase;
    s.reading = comm::reading_now();
    s.silent_s = silent_s;
    s.limit_s = limit_s();
    for (const auto* trace : comm::traces_in_use()) {
      Standing::Use use;
      use.name = trace->name;
      use.number = trace->number;
      use.members = trace->members;
      use.left = trace->left;
      use.entered = trace->entered;
      use.kind = trace->kind;
      use.bytes = trace->bytes;
      use.since_s = seconds_since(trace->entered_ns);
      s.uses.push_back(std::move(use));
    }
    return s;
  }

  std::optional<Standing> answer_of(int r, const std::string& question) const {
    auto found = parse_standing(read_file(answer_path(r)));
    return found && found->question == question ? std::move(found) : std::nullopt;
  }

  void answer(const std::string& question) {
    const bool mine_hangs = over_limit();
    const auto mine = standing(question);
    write_file(answer_path(rank), to_text(mine) + ring_text());
    if (mine_hangs) comm::write_stack_of(watched, fmt::format("{}/{}.stack.txt", folder, rank));
    const auto began = comm::steady_ns();
    while (seconds_since(began) < grace_s && still_asked(question) && sleep(0.25)) {
      if (rank == 0 && all_answered(question)) break;
    }
    int speaker = 0;
    while (speaker < rank && !answer_of(speaker, question)) ++speaker;
    // A lower rank reports, unless it has fallen silent too.
    while (speaker != rank && seconds_since(began) < 2 * grace_s + comm::kAbort_s && still_asked(question) &&
           sleep(0.5)) {
    }
    if (still_asked(question)) conclude(question, mine_hangs);
  }

  bool still_asked(const std::string& question) const { return read_file(question_path()) == question; }

  bool all_answered(const std::string& question) const {
    for (int r = 0; r < static_cast<int>(hosts.size()); ++r) {
      if (!answer_of(r, question)) return false;
    }
    return true;
  }

  void conclude(const std::string& question, bool mine_hangs) {
    {
      const std::lock_guard lock(mutex);
      if (stop) return;  // the run is over
    }
    std::vector<std::optional<Standing>> answers;
    for (int r = 0; r < static_cast<int>(hosts.size()); ++r) answers.push_back(answer_of(r, question));
    const auto verdict = judge(answers, hosts);
    const bool moved = mine_hangs && comm::progress_count() != seen;  // progress while the others were asked
    if (verdict.hang && !moved) {
      double longest = 0;
      for (const auto& a : answers) longest = std::max(longest, a ? a->silent_s : 0);
      const Error hang(ExitCode::device, fmt::format("hang: no progress for {:.1f} s: {}", longest, verdict.what),
                       kRemedy);
      comm::die(hang.message(), static_cast<int>(hang.code()));
    }
    // In one write, and from any rank: log::warn prints on rank 0 only.
    const auto line = fmt::format("warning: {}: {}: {}\n", comm::identity(),
                                  moved ? "a hang was suspected, and the run went on meanwhile"
                                        : "some ranks have waited for longer than log.hang_seconds",
                                  verdict.what);
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
    write_in_place(question_path(), "");
  }

  const SilenceLimits limits;
  const std::string folder;
  const int rank;
  std::vector<std::string> hosts;  ///< by rank
  double poll_s = 1, grace_s = 3, silent_s = 0;
  pthread_t watched{};
  std::uint64_t seen = 0;
  std::int64_t last_ns = comm::steady_ns();
  std::string answered;    ///< the last question that this rank has handled
  std::string last_words;  ///< what the alarm writes
  std::mutex mutex;
  std::condition_variable changed;
  bool stop = false;
  std::thread thread;
};

Watchdog::Watchdog(const comm::Communicator& world, const std::string& run_dir, SilenceLimits limits) {
  if (shortest(limits) > 0) impl_ = std::make_unique<Impl>(world, run_dir, limits);
}

Watchdog::~Watchdog() = default;

}  // namespace seer::watch
