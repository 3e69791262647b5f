// SPDX-License-Identifier: Apache-2.0
#include "seer/watch/watchdog.hpp"

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <ranges>
#include <sstream>
#include <stop_token>
#include <thread>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/ending.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/stack.hpp"
#include "standing.hpp"

namespace seer::watch {
namespace {

namespace fs = std::filesystem;
constexpr const char* kRemedy =
    "see hang/ in the run folder for every rank's last collectives and stack, check that node, and start again: the "
    "run continues from its newest checkpoint";

double shortest(const SilenceLimits& limits) {
  double out = 0;
  for (const double s : {limits.set_up_s, limits.update_s, limits.checkpoint_s})
    if (s > 0 && (out == 0 || s < out)) out = s;
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
  std::ofstream(path) << text;
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
      if (error)
        throw Error(ExitCode::file, fmt::format("{}: {}", folder, error.message()),
                    "make the run folder writable, or turn the watchdog off (set log.hang_seconds and the other hang "
                    "limits to 0)");
    });
    hosts = world.all_gather(log::host_name());
    poll_s = std::clamp(shortest(limits) / 8, 0.1, 5.0);
    grace_s = std::clamp(shortest(limits) / 5, 3.0, 60.0);
    comm::prepare_stacks();
    watched = pthread_self();
    seen = comm::progress_count();
    thread = comm::start_watching_thread("the watchdog", [this] { loop(); });
  }

  ~Impl() {
    stop.request_stop();
    thread.join();
    comm::go_on_living();
  }

  /// Returns false if the watchdog must end.
  bool sleep(double seconds) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, stop.get_token(), std::chrono::duration<double>(seconds), [] { return false; });
    return !stop.stop_requested();
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
    const auto count = comm::progress_count();
    silent_s = count == seen ? silent_s + std::min(seconds_since(last_ns), 2 * poll_s) : 0;
    last_ns = comm::steady_ns();
    seen = count;
  }

  double limit_s() const {
    const double by_stage[] = {limits.set_up_s, limits.update_s, limits.checkpoint_s};
    return by_stage[static_cast<std::size_t>(comm::doing_now().stage)];
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
        fmt::format("error: {}: no progress for more than {:.0f} s{}, and the run folder does not respond; {}\n",
                    comm::identity(), limit_s(), comm::doing_text(), kRemedy);
    strikes = 0;
    count_at_alarm = comm::progress_count();
    comm::end_in(static_cast<unsigned>(after_s + 4 * grace_s) + comm::kAbort_s, static_cast<int>(ExitCode::device),
                 last_words.c_str(), &spare_at_alarm);
  }

  Standing standing(const std::string& question) const {
    Standing s{.question = question,
               .rank = rank,
               .host = log::host_name(),
               .phase = comm::doing_now().phase,
               .reading = comm::reading_now(),
               .update = comm::told_update(),
               .silent_s = silent_s,
               .limit_s = limit_s(),
               .uses = {}};
    for (const auto* trace : comm::traces_in_use())
      s.uses.push_back({.name = trace->name.load(),
                        .number = trace->number,
                        .members = trace->members,
                        .left = trace->left,
                        .entered = trace->entered,
                        .bytes = trace->bytes,
                        .kind = trace->kind.load(),
                        .since_s = seconds_since(trace->entered_ns)});
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
    const auto has_answered = [&](int r) { return answer_of(r, question).has_value(); };
    const auto all = std::views::iota(0, static_cast<int>(hosts.size()));
    const auto began = comm::steady_ns();
    while (seconds_since(began) < grace_s && still_asked(question) && sleep(0.25))
      if (rank == 0 && std::ranges::all_of(all, has_answered)) break;
    int speaker = 0;
    while (speaker < rank && !has_answered(speaker)) ++speaker;
    // A lower rank reports, unless it has fallen silent too.
    while (speaker != rank && seconds_since(began) < 2 * grace_s + comm::kAbort_s && still_asked(question) &&
           sleep(0.5)) {
    }
    if (still_asked(question)) conclude(question, mine_hangs);
  }

  bool still_asked(const std::string& question) const { return read_file(question_path()) == question; }

  void conclude(const std::string& question, bool mine_hangs) {
    if (stop.stop_requested()) return;  // the run is over
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
                                  moved ? "this looked like a hang, but the run has made progress since"
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
  std::condition_variable_any changed;
  std::stop_source stop;
  std::thread thread;
};

Watchdog::Watchdog(const comm::Communicator& world, const std::string& run_dir, SilenceLimits limits) {
  if (shortest(limits) > 0) impl_ = std::make_unique<Impl>(world, run_dir, limits);
}

Watchdog::~Watchdog() = default;

}  // namespace seer::watch
