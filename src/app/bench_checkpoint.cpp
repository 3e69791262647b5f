// SPDX-License-Identifier: Apache-2.0
// seer bench checkpoint: saves and loads a given number of bytes, compared with plain writes of the same bytes in the
// same run. Also saves beside other work: how long that work stops, and how much slower it is meanwhile.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/method/method.hpp"

namespace seer::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::int64_t bytes = std::int64_t{256} << 20;
  std::string config;
  std::vector<std::string> set;
  std::string dir = ".";
  std::int64_t rounds = 5;
  bool json = false;
};

struct Timings {
  std::map<std::string, double> seconds;  ///< by the name in the JSON output
  double work_share = 0;                  ///< speed of work beside a save, relative to its speed alone
};

// The best that any program can do: every rank writes its bytes to its own file and syncs it.
void write_plainly(const std::string& path, const std::vector<float>& values) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
  file.close();
  if (!file) throw Error(ExitCode::file, fmt::format("cannot write {}: {}", path, std::strerror(errno)));
  checkpoint::RawFile(path).sync();
}

// Seconds of the slowest rank for `step`, which all ranks call.
template <class Step>
double timed(const comm::Communicator& world, Step step) {
  world.barrier();
  const Clock clock;
  step();
  return world.all_reduce(clock.seconds(), comm::Op::max);
}

// Stands in for the training: arithmetic that a core does in its caches. rate(): rounds per second.
class Work {
 public:
  template <class Until>
  double rate(Until until) {
    const Clock clock;
    std::int64_t rounds = 0;
    do {
      for (auto& v : values_) v = v * 0.999F + 0.001F;
      ++rounds;
    } while (!until(clock.seconds()));
    seen_ = values_[0];
    return static_cast<double>(rounds) / clock.seconds();
  }

 private:
  std::vector<float> values_ = std::vector<float>(4096, 1.5F);
  volatile float seen_ = 0;  // keeps the compiler from removing the work
};

Timings measure(const comm::Communicator& world, const Options& options, const std::string& folder) {
  // Tensors of 4 Mi elements, split at the ends of the ranks' equal shares.
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
      float* const part = b < e ? data.data() + (at + b - begin) : nullptr;
      out.push_back({"model", fmt::format("tensor{:06d}", at / kTensor), {n}, part, b, e});
    }
    return out;
  };
  checkpoint::State state;
  state.update = 1;
  // Plain writes and saves alternate, and the best of each counts: disk speed changes from minute to minute.
  Timings best;
  const auto keep = [&](const std::string& name, double seconds) {
    const auto [least, first] = best.seconds.try_emplace(name, seconds);
    least->second = std::min(least->second, seconds);
  };
  checkpoint::Background background(world, true);
  checkpoint::Snapshot snapshot;
  snapshot.take(slabs(values));  // allocates the memory before the first timed save
  Work work;
  const auto plain = fmt::format("{}/plain.{}", folder, world.rank());
  std::string saved;
  std::optional<std::string> valid;
  for (std::int64_t i = 0; i < options.rounds; ++i) {
    keep("plain", timed(world, [&] { comm::agree(world, "plain writes", [&] { write_plainly(plain, values); }); }));
    fs::remove(plain);
    if (world.is_root()) fs::remove_all(folder + "/checkpoints");
    keep("save", timed(world, [&] { saved = checkpoint::save(world, folder, slabs(values), state); }));
    keep("verify", timed(world, [&] { valid = checkpoint::find_valid(world, folder); }));
    keep("load", timed(world, [&] { checkpoint::load(world, saved, slabs(found), true); }));
    if (world.is_root()) fs::remove_all(folder + "/checkpoints");
    world.barrier();
    const double quiet = work.rate([](double seconds) { return seconds > 0.3; });
    keep("async_stall", timed(world, [&] {
           snapshot.take(slabs(values));
           background.start([&](const comm::Communicator& comm) {
             saved = checkpoint::save(comm, folder, snapshot.slabs(), state);
           });
         }));
    const double beside = work.rate([&](double) { return background.finished(); });
    const auto outcome = background.wait();
    if (outcome.error) throw Error(*outcome.error);
    keep("async_write", world.all_reduce(outcome.seconds, comm::Op::max));
    best.work_share = std::max(best.work_share, world.all_reduce(beside / quiet, comm::Op::min));
  }
  comm::agree(world, "comparing",
              [&] { ensure(valid == saved && found == values, "a checkpoint reads back differently"); });
  return best;
}

// Parameters, momentum and running statistics.
std::int64_t bytes_of(const config::Config& config) {
  const auto model = method::make_model(config);
  return 4 * (2 * model.parameters().parameter_count() + model.buffers().block_elems());
}

void report(const Options& options, int ranks, const Timings& t) {
  const auto rate = [&](double seconds) { return static_cast<double>(options.bytes) / seconds * 1e-9; };
  const double save_over_plain = t.seconds.at("plain") / t.seconds.at("save");
  if (options.json) {
    nlohmann::json out = {{"bytes", options.bytes},
                          {"ranks", ranks},
                          {"async_work_share", t.work_share},
                          {"save_over_plain", save_over_plain}};
    for (const auto& [name, seconds] : t.seconds) {
      out[name + "_s"] = seconds;
      if (name != "async_stall") out[name + "_gb_per_s"] = rate(seconds);
    }
    fmt::print("{}\n", out.dump(1));
    return;
  }
  fmt::print("checkpoint of {} bytes, {} ranks, in {}\n", options.bytes, ranks, options.dir);
  for (const auto& [label, name] : {std::pair("write(2) + fsync", "plain"),
                                    {"save", "save"},
                                    {"verify", "verify"},
                                    {"load", "load"},
                                    {"save beside work", "async_write"},
                                    {"  its copy", "async_stall"}})
    fmt::print("  {:<18}{:9.3f} s {:8.3f} GB/s\n", label, t.seconds.at(name), rate(t.seconds.at(name)));
  fmt::print(
      "  save runs at {:.2f} of the speed of plain writes, one file a rank;\n"
      "  verify and load read what the page cache holds;\n"
      "  beside a save, work in each rank's own thread runs at {:.2f} of its speed\n",
      save_over_plain, t.work_share);
}

}  // namespace

Run add_bench_checkpoint(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("--bytes", options->bytes, "Size of the checkpoint")
      ->check(CLI::Range(std::int64_t{1024}, std::int64_t{1} << 50));
  command.add_option("--config", options->config, "Configuration file: the size of its model's checkpoints instead");
  add_set(command, options->set, "Override for --config: section.key=value");
  command.add_option("--dir", options->dir, "Where: a folder on the file system in question");
  command.add_option("--rounds", options->rounds, "Measurements, of which the best counts")->check(CLI::Range(1, 1000));
  command.add_flag("--json", options->json, "Figures as JSON");
  return [options](const comm::Communicator& world) {
    if (!options->config.empty()) options->bytes = bytes_of(load_config(world, options->config, options->set));
    // The root's process id is in the name, so that simultaneous runs do not collide.
    std::string folder = fmt::format("{}/seer-bench-checkpoint-{}", options->dir, getpid());
    world.broadcast(folder);
    const std::shared_ptr<void> remover(nullptr, [&](void*) {
      std::error_code ec;
      if (world.is_root()) fs::remove_all(folder, ec);
    });
    comm::agree(world, "creating the folder", [&] {
      std::error_code ec;
      if (world.is_root()) fs::create_directories(folder, ec);
      if (ec) throw Error(ExitCode::file, fmt::format("cannot create {}: {}", folder, ec.message()));
    });
    const auto timings = measure(world, *options, folder);
    if (world.is_root()) report(*options, world.size(), timings);
    return 0;
  };
}

}  // namespace seer::app
