// SPDX-License-Identifier: Apache-2.0
// seer bench checkpoint: saving and loading of so many bytes, against plain writes of the same bytes in the same run.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::int64_t bytes = std::int64_t{256} << 20;
  std::string dir = ".";
  std::int64_t rounds = 5;
  bool json = false;
};

struct Timings {
  double plain_s = 0, save_s = 0, verify_s = 0, load_s = 0;
};

// What any program can do at best: every rank writes its bytes to a file of its own, and syncs.
void write_plainly(const std::string& path, const std::vector<float>& values) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) throw Error(ExitCode::file, fmt::format("cannot create {}: {}", path, std::strerror(errno)));
  const auto* at = reinterpret_cast<const char*>(values.data());
  auto left = values.size() * sizeof(float);
  bool failed = false;
  while (left > 0 && !failed) {
    const auto n = write(fd, at, std::min<std::size_t>(left, std::size_t{1} << 30));
    failed = n <= 0 && errno != EINTR;
    if (n > 0) at += n, left -= static_cast<std::size_t>(n);
  }
  failed = failed || fsync(fd) != 0;
  const int error = errno;
  close(fd);
  if (failed) throw Error(ExitCode::file, fmt::format("cannot write {}: {}", path, std::strerror(error)));
}

// Slowest rank's seconds of `step`, which is collective or entered by all.
template <class Step>
double timed(const comm::Communicator& world, Step step) {
  world.barrier();
  const Clock clock;
  step();
  return world.all_reduce(clock.seconds(), comm::Op::max);
}

Timings measure(const comm::Communicator& world, const Options& options, const std::string& folder) {
  // Tensors of 4 Mi elements, cut where the ranks' equal shares end.
  constexpr std::int64_t kTensor = std::int64_t{1} << 22;
  const std::int64_t total = std::max<std::int64_t>(options.bytes / 4, world.size());
  const std::int64_t begin = total * world.rank() / world.size(), end = total * (world.rank() + 1) / world.size();
  std::vector<float> values(static_cast<std::size_t>(end - begin)), found(values.size());
  Random random(0, Purpose::test, static_cast<std::uint64_t>(world.rank()));
  for (auto& v : values) v = static_cast<float>(random.bits());
  const auto slabs = [&](std::vector<float>& data) {
    std::vector<checkpoint::Slab> out;
    for (std::int64_t at = 0; at < total; at += kTensor) {
      const auto n = std::min(kTensor, total - at);
      const auto b = std::clamp(begin - at, std::int64_t{0}, n), e = std::clamp(end - at, std::int64_t{0}, n);
      out.push_back({"model",
                     fmt::format("tensor{:06d}", at / kTensor),
                     {n},
                     b < e ? data.data() + (at + b - begin) : nullptr,
                     b,
                     e});
    }
    return out;
  };
  checkpoint::State state;
  state.update = 1;
  // Plain writes and saves alternate, and the best of each counts: disks differ more from minute to minute.
  constexpr double kNever = 1e30;
  Timings best{kNever, kNever, kNever, kNever};
  const auto keep = [](double& least, double seconds) { least = std::min(least, seconds); };
  const auto plain = fmt::format("{}/plain.{}", folder, world.rank());
  std::string saved;
  std::optional<std::string> valid;
  for (std::int64_t i = 0; i < options.rounds; ++i) {
    keep(best.plain_s,
         timed(world, [&] { comm::agree(world, "plain writes", [&] { write_plainly(plain, values); }); }));
    fs::remove(plain);
    if (world.is_root()) fs::remove_all(folder + "/checkpoints");
    keep(best.save_s, timed(world, [&] { saved = checkpoint::save(world, folder, slabs(values), state); }));
    keep(best.verify_s, timed(world, [&] { valid = checkpoint::find_valid(world, folder); }));
    keep(best.load_s, timed(world, [&] { checkpoint::load(world, saved, slabs(found), true); }));
  }
  comm::agree(world, "comparing",
              [&] { ensure(valid == saved && found == values, "a checkpoint reads back differently"); });
  return best;
}

void report(const Options& options, int ranks, const Timings& t) {
  const auto rate = [&](double seconds) { return static_cast<double>(options.bytes) / seconds * 1e-9; };
  if (options.json) {
    std::cout << nlohmann::json{{"bytes", options.bytes},
                                {"ranks", ranks},
                                {"plain_s", t.plain_s},
                                {"save_s", t.save_s},
                                {"verify_s", t.verify_s},
                                {"load_s", t.load_s},
                                {"plain_gb_per_s", rate(t.plain_s)},
                                {"save_gb_per_s", rate(t.save_s)},
                                {"verify_gb_per_s", rate(t.verify_s)},
                                {"load_gb_per_s", rate(t.load_s)},
                                {"save_over_plain", t.plain_s / t.save_s}}
                     .dump(1)
              << '\n';
    return;
  }
  std::cout << fmt::format("checkpoint of {} bytes, {} ranks, in {}\n", options.bytes, ranks, options.dir);
  for (const auto& [name, seconds] :
       {std::pair("write(2) + fsync", t.plain_s), {"save", t.save_s}, {"verify", t.verify_s}, {"load", t.load_s}}) {
    std::cout << fmt::format("  {:<18}{:9.3f} s {:8.3f} GB/s\n", name, seconds, rate(seconds));
  }
  std::cout << fmt::format(
      "  save runs at {:.2f} of the speed of plain writes, one file a rank;\n"
      "  verify and load read what the page cache holds\n",
      t.plain_s / t.save_s);
}

}  // namespace

Run add_bench_checkpoint(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("--bytes", options->bytes, "Size of the checkpoint")
      ->check(CLI::Range(std::int64_t{1024}, std::int64_t{1} << 50))
      ->capture_default_str();
  command.add_option("--dir", options->dir, "Where: a folder on the file system in question")->capture_default_str();
  command.add_option("--rounds", options->rounds, "Measurements, of which the best counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command.add_flag("--json", options->json, "Figures as JSON");
  return [options](const comm::Communicator& world) {
    // The root's process number is in the name, so that runs side by side do not meet.
    std::string folder = fmt::format("{}/seer-bench-checkpoint-{}", options->dir, getpid());
    world.broadcast(folder);
    const auto remove = [&] {
      std::error_code ec;
      if (world.is_root()) fs::remove_all(folder, ec);
    };
    Timings timings;
    try {
      comm::agree(world, "creating the folder", [&] {
        std::error_code ec;
        if (world.is_root()) fs::create_directories(folder, ec);
        if (ec) throw Error(ExitCode::file, fmt::format("cannot create {}: {}", folder, ec.message()));
      });
      timings = measure(world, *options, folder);
    } catch (...) {
      remove();
      throw;
    }
    remove();
    if (world.is_root()) report(*options, world.size(), timings);
    return 0;
  };
}

}  // namespace seer::app
