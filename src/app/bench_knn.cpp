// SPDX-License-Identifier: Apache-2.0
// `seer bench knn`: the search for neighbours alone, on made-up features: time, and memory of a rank.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/random.hpp"
#include "seer/device/memory.hpp"
#include "seer/eval/knn.hpp"

namespace seer::app {
namespace {

struct Options {
  std::int64_t train = 100000, test = 2000, dimension = 2048, classes = 100;
  bool json = false;
};

/// This rank's rows: the centre of the row's class plus noise that is larger.
eval::FeatureTable made_up(const comm::Communicator& world, const Options& options, std::int64_t rows,
                           std::uint64_t seed) {
  const auto d = static_cast<std::size_t>(options.dimension);
  const auto uniform = [](Random& random) { return static_cast<float>(random.bits()) * 0x1p-31F - 1; };
  std::vector<float> centres(static_cast<std::size_t>(options.classes) * d);
  Random of_centres(0, Purpose::test);
  for (float& value : centres) value = 0.2F * uniform(of_centres);
  eval::FeatureTable out;
  out.info.images = static_cast<std::uint64_t>(rows);
  out.info.dimension = options.dimension;
  out.info.data = out.info.source = "made-up features";
  out.first = eval::slice_begin(out.info.images, world.rank(), world.size());
  const auto count = eval::slice_begin(out.info.images, world.rank() + 1, world.size()) - out.first;
  out.values.resize(count * d);
  out.bad.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    out.index.push_back(out.first + i);
    out.labels.push_back(static_cast<std::int32_t>((out.first + i) % static_cast<std::uint64_t>(options.classes)));
    Random random(seed, Purpose::test, out.first + i);
    const float* const centre = centres.data() + static_cast<std::size_t>(out.labels.back()) * d;
    for (std::size_t j = 0; j < d; ++j) out.values[i * d + j] = centre[j] + uniform(random);
  }
  return out;
}

int run(const comm::Communicator& world, const Options& options) {
  const auto train = made_up(world, options, options.train, 1), test = made_up(world, options, options.test, 2);
  const auto most = [&](double value) { return world.all_reduce(value, comm::Op::max); };
  const double tables = most(static_cast<double>((train.values.size() + test.values.size()) * sizeof(float)));
  const auto before = most(static_cast<double>(device::resident_bytes()));
  world.barrier();
  const Clock clock;
  const auto report = eval::knn_report(world, train, test, {.k = {10, 20, 100, 200}});
  const double seconds = most(clock.seconds());
  const auto peak = most(static_cast<double>(device::peak_resident_bytes()));
  const double products = 2.0 * static_cast<double>(options.train) * static_cast<double>(options.test) *
                          static_cast<double>(options.dimension);
  if (!world.is_root()) return 0;
  if (options.json) {
    const nlohmann::json out = {{"bench", "knn"},
                                {"ranks", world.size()},
                                {"train", options.train},
                                {"test", options.test},
                                {"dimension", options.dimension},
                                {"seconds", seconds},
                                {"gflop_per_s", products / seconds / 1e9},
                                {"table_bytes", tables},
                                {"peak_bytes", peak},
                                {"search_bytes", peak - before},
                                {"top1", 100 * report.scores[1].top1}};
    fmt::print("{}\n", out.dump(2));
    return 0;
  }
  fmt::print("{} test images among {} training images of {} values, on {} ranks: {:.1f} s, {:.1f} GFLOP/s in all\n",
             options.test, options.train, options.dimension, world.size(), seconds, products / seconds / 1e9);
  fmt::print(
      "tables of the fullest rank {:10.1f} MB\nthe search itself          {:10.1f} MB\npeak of the process  "
      "      {:10.1f} MB\n",
      tables / 1e6, (peak - before) / 1e6, peak / 1e6);
  fmt::print("top-1, k = 20              {:10.1f} %\n", 100 * report.scores[1].top1);
  return 0;
}

}  // namespace

Run add_bench_knn(CLI::App& command) {
  auto options = std::make_shared<Options>();
  const auto count = CLI::Range(std::int64_t{1}, std::int64_t{1} << 32);
  command.add_option("--train", options->train, "Training images, over all ranks")->check(count);
  command.add_option("--test", options->test, "Test images, over all ranks")->check(count);
  command.add_option("--dimension", options->dimension, "Values of an image's features")->check(count);
  command.add_option("--classes", options->classes, "Classes")->check(count);
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  return [options](const comm::Communicator& world) { return run(world, *options); };
}

}  // namespace seer::app
