// SPDX-License-Identifier: Apache-2.0
// `seer bench data`: the loader alone. Takes batches as fast as they come, so that the worker threads are measured:
// images per second, and where a worker's time goes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/data/source.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> set;
  std::int64_t updates = 50, warmup = 2;
  bool json = false;
};

/// Sums over ranks, for the timed updates.
struct Measured {
  double seconds = 0;  ///< of the slowest rank
  std::int64_t images = 0, threads = 0, bytes_read = 0, bad_images = 0;
  double read_ms = 0, decode_ms = 0, augment_ms = 0, other_ms = 0;
  std::int64_t bytes_held = 0;  ///< maximum over ranks
  double images_per_s() const { return static_cast<double>(images) / seconds; }
  double mb_read_per_s() const { return static_cast<double>(bytes_read) / seconds / 1e6; }
  double images_per_s_core() const { return images_per_s() / static_cast<double>(threads); }
};

Measured measure(const comm::Communicator& world, const config::Config& config, const Options& options) {
  auto source = data::open_source(config, world);
  auto* const loader = dynamic_cast<data::ShardLoader*>(source.get());
  if (loader == nullptr) {
    throw Error(ExitCode::input, "data.source = \"crops\" has no loader to measure", "use data.source = \"shards\"")
        .as_agreed();
  }
  for (std::int64_t i = 0; i < options.warmup; ++i) loader->next();
  world.barrier();
  // Images are counted when workers finish them: as many batches are made ahead before the interval as after it.
  const auto before = loader->times();
  const Clock clock;
  for (std::int64_t i = 0; i < options.updates; ++i) loader->next();
  Measured m{.seconds = clock.seconds()};
  const auto after = loader->times();
  m.seconds = world.all_reduce(m.seconds, comm::Op::max);
  m.images = world.all_reduce(after.images - before.images, comm::Op::sum);
  m.threads = world.all_reduce(static_cast<std::int64_t>(loader->threads()), comm::Op::sum);
  m.bytes_read = world.all_reduce(after.bytes_read - before.bytes_read, comm::Op::sum);
  m.bad_images = world.all_reduce(loader->bad_images(), comm::Op::sum);
  m.bytes_held = world.all_reduce(loader->bytes_held(), comm::Op::max);
  m.read_ms = world.all_reduce(after.read_ms - before.read_ms, comm::Op::sum);
  m.decode_ms = world.all_reduce(after.decode_ms - before.decode_ms, comm::Op::sum);
  m.augment_ms = world.all_reduce(after.augment_ms - before.augment_ms, comm::Op::sum);
  m.other_ms = m.seconds * 1000 * static_cast<double>(m.threads) - m.read_ms - m.decode_ms - m.augment_ms;
  return m;
}

void print(const Measured& m, const config::Config& config, int ranks, bool json) {
  const auto each = [&m](double ms) { return ms / static_cast<double>(m.images); };
  if (json) {
    const nlohmann::json out = {{"bench", "data"},
                                {"ranks", ranks},
                                {"threads", m.threads},
                                {"global_batch", config.data.global_batch},
                                {"images", m.images},
                                {"seconds", m.seconds},
                                {"images_per_s", m.images_per_s()},
                                {"images_per_s_per_core", m.images_per_s_core()},
                                {"read_ms_per_image", each(m.read_ms)},
                                {"decode_ms_per_image", each(m.decode_ms)},
                                {"augment_ms_per_image", each(m.augment_ms)},
                                {"other_ms_per_image", each(m.other_ms)},
                                {"mb_read_per_s", m.mb_read_per_s()},
                                {"bytes_held", m.bytes_held},
                                {"bad_images", m.bad_images}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{} images in {:.2f} s on {} ranks with {} reader threads in all\n", m.images, m.seconds, ranks,
             m.threads);
  fmt::print("images/s        {:10.1f}\nimages/s a core {:10.1f}\n", m.images_per_s(), m.images_per_s_core());
  fmt::print("read            {:10.3f} ms an image ({:.1f} MB/s in all)\n", each(m.read_ms), m.mb_read_per_s());
  fmt::print("decode          {:10.3f} ms an image\n", each(m.decode_ms));
  fmt::print("augment         {:10.3f} ms an image\n", each(m.augment_ms));
  fmt::print("other           {:10.3f} ms an image (waiting, sharing a core)\n", each(m.other_ms));
  fmt::print("held            {:10.1f} MB on the fullest rank\n", static_cast<double>(m.bytes_held) / 1e6);
  if (m.bad_images > 0) fmt::print("bad images      {:10}\n", m.bad_images);
}

}  // namespace

Run add_bench_data(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("config", options->config, "Configuration file (TOML); default: SEER's crops, shards/*.h5");
  add_set(command, options->set);
  command.add_option("--updates", options->updates, "Batches to time")->check(CLI::PositiveNumber);
  command.add_option("--warmup", options->warmup, "Batches before")->check(CLI::NonNegativeNumber);
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  return [options](const comm::Communicator& world) {
    const auto config = load_config(world, options->config, options->set);
    const auto measured = measure(world, config, *options);
    if (world.is_root()) print(measured, config, world.size(), options->json);
    return 0;
  };
}

}  // namespace seer::app
