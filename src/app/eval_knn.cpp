// SPDX-License-Identifier: Apache-2.0
// seer eval knn: a table of k-NN accuracies, with the baselines that they must beat.
#include "eval_knn.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "eval_options.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/knn.hpp"

namespace seer::app {
namespace {

constexpr std::int64_t kPixelSide = 8;
constexpr std::int64_t kBaselineImages = 1024;  ///< for the BatchNorm statistics of a random network

struct Options {
  std::vector<std::string> weights;
  std::string train, test, train_features, test_features;
  eval::KnnOptions knn;
  EvalChoices choices;
  bool no_cosine = false, baselines = false, json = false;
  std::int64_t baseline_seed = 0;
};

/// A data set, with the name used in the report.
struct Set {
  std::string name;
  std::uint64_t images = 0;
};

struct Row {
  std::string representation;
  std::int64_t dimension = 0;
  eval::KnnReport report;
};

void check(const Options& o) {
  const bool files = !o.train_features.empty() || !o.test_features.empty();
  if (files && (o.train_features.empty() || o.test_features.empty() || !o.weights.empty() || !o.train.empty() ||
                !o.test.empty() || o.baselines)) {
    throw Error(
        ExitCode::input,
        "--train-features and --test-features go together, and without weights, --train, --test and --baselines");
  }
  if (files && o.choices != EvalChoices()) {
    throw Error(ExitCode::input,
                "--train-features and --test-features are compared as they are: --layer, --resize, --crop, --batch, "
                "--device and --recalibrate-batchnorm have no effect on them",
                "leave these options out, or give them to seer features");
  }
  if (!files && (o.train.empty() || o.test.empty())) {
    throw Error(ExitCode::input, "eval knn needs --train and --test shards, or --train-features and --test-features");
  }
  if (!files && o.weights.empty() && !o.baselines) {
    throw Error(ExitCode::input, "eval knn needs weights, a checkpoint or a run folder to evaluate (or --baselines)");
  }
}

class Evaluation {
 public:
  Evaluation(const Options& options, const comm::Communicator& world)
      : options_(options),
        world_(world),
        train_(data::DataSet::open(options.train, world)),
        test_(data::DataSet::open(options.test, world)),
        reading_(reading_of(options.choices)) {
    // Checked before the first feature is computed, not after the last.
    comm::agree(world, "k-NN labels", [&] {
      for (const auto& [set, path] : {std::pair(&train_, &options.train), std::pair(&test_, &options.test)}) {
        if (!set->has_labels()) {
          throw Error(ExitCode::file, fmt::format("k-NN: {} has no labels", *path), "pack it with --labels folder");
        }
      }
      eval::common_classes(train_.classes(), options.train, test_.classes(), options.test);
    });
    eval::warn_of_common(world, eval::my_checksums(train_, world), options.train, eval::my_checksums(test_, world),
                         options.test);
  }

  Set train() const { return {options_.train, train_.images()}; }
  Set test() const { return {options_.test, test_.images()}; }

  std::vector<Row> rows() {
    for (const auto& path : options_.weights) {
      auto extractor = eval::FeatureExtractor::load(world_, path, layer_of(options_.choices));
      extractor.compute_on(options_.choices.device);
      const auto model = extractor.model();
      const auto head = extractor.head();
      score(extractor.source(), extractor);
      if (options_.choices.recalibrate > 0) {
        extractor.recalibrate(world_, train_, options_.choices.recalibrate, reading_);
        score(extractor.source() + ", BatchNorm recalibrated", extractor);
      }
      if (options_.baselines) random_network(model, head);
    }
    if (options_.baselines) {
      auto train = eval::pixel_table(world_, train_, kPixelSide, reading_);
      auto test = eval::pixel_table(world_, test_, kPixelSide, reading_);
      eval::remove_mean(world_, train, test);
      score(fmt::format("raw pixels, {0}x{0}, mean removed", kPixelSide), train, test);
    }
    return std::move(rows_);
  }

 private:
  /// The same architecture as initialised; and again with its own BatchNorm statistics, the stronger baseline.
  void random_network(const config::Model& model, const config::Head& head) {
    const std::string name = model.preset.empty() ? "same network" : model.trunk + " " + model.preset;
    if (std::find(seen_.begin(), seen_.end(), name) != seen_.end() && !model.preset.empty()) return;
    seen_.push_back(name);
    eval::FeatureExtractor random(model, head, static_cast<std::uint64_t>(options_.baseline_seed),
                                  layer_of(options_.choices));
    random.compute_on(options_.choices.device);
    score(name + ", random initialisation", random);
    random.recalibrate(world_, train_, std::max(kBaselineImages, options_.choices.recalibrate), reading_);
    score(name + ", random initialisation, BatchNorm recalibrated", random);
  }

  void score(const std::string& name, eval::FeatureExtractor& extractor) {
    score(name, extractor.table(world_, train_, reading_), extractor.table(world_, test_, reading_));
  }
  void score(const std::string& name, const eval::FeatureTable& train, const eval::FeatureTable& test) {
    rows_.push_back({name, train.info.dimension, eval::knn_report(world_, train, test, options_.knn)});
  }

  const Options& options_;
  const comm::Communicator& world_;
  data::DataSet train_, test_;
  data::EvalOptions reading_;
  std::vector<Row> rows_;
  std::vector<std::string> seen_;
};

/// Compares two files of `seer features`, which must have been computed alike.
Row compare_tables(const Options& options, const comm::Communicator& world, Set& train_set, Set& test_set) {
  const auto &train_name = options.train_features, &test_name = options.test_features;
  const auto train = eval::read_features(world, train_name), test = eval::read_features(world, test_name);
  comm::agree(world, "comparing the tables",
              [&] { eval::require_alike(train.info, train_name, test.info, test_name); });
  train_set = {fmt::format("{} (features of {})", train_name, train.info.data), train.info.images};
  test_set = {fmt::format("{} (features of {})", test_name, test.info.data), test.info.images};
  std::array<std::int64_t, 2> told = {static_cast<std::int64_t>(train.checksum.size()),
                                      static_cast<std::int64_t>(test.checksum.size())};
  world.all_reduce(std::span(told));
  if (told[0] > 0 && told[1] > 0) {
    eval::warn_of_common(world, train.checksum, train_set.name, test.checksum, test_set.name);
  } else if (train.info.data == test.info.data) {
    log::warn(fmt::format("{} and {} are both of {}: if these are the same images, each finds itself", train_name,
                          test_name, train.info.data));
  }
  return {fmt::format("{} ({})", train.info.source, train.info.layer), train.info.dimension,
          eval::knn_report(world, train, test, options.knn)};
}

nlohmann::json to_json(const std::vector<Row>& rows, const Options& options, const Set& train, const Set& test) {
  nlohmann::json out = {{"temperature", options.knn.temperature},
                        {"cosine", options.knn.cosine},
                        {"train", train.name},
                        {"test", test.name},
                        {"rows", nlohmann::json::array()}};
  for (const auto& row : rows) {
    for (const auto& score : row.report.scores) {
      out["rows"].push_back({{"representation", row.representation},
                             {"dimension", row.dimension},
                             {"k", score.k},
                             {"top1", score.top1},
                             {"top5", score.top5},
                             {"train_images", row.report.train_rows},
                             {"test_images", row.report.test_rows},
                             {"classes", row.report.classes},
                             {"chance", 1.0 / static_cast<double>(row.report.classes)},
                             {"largest_class", row.report.largest_class}});
    }
  }
  return out;
}

void print_table(const std::vector<Row>& rows, const Set& train, const Set& test) {
  std::size_t width = 14;
  for (const auto& row : rows) width = std::max(width, row.representation.size());
  fmt::print("{:{}} | {:>6} | {:>5} | {:>7} | {:>7} | {:>8} | {:>7}\n", "representation", width, "dims", "k", "top-1 %",
             "top-5 %", "n train", "n test");
  fmt::print("{}\n", std::string(width + 58, '-'));
  for (const auto& row : rows) {
    for (const auto& score : row.report.scores) {
      fmt::print("{:{}} | {:>6} | {:>5} | {:>7.2f} | {:>7.2f} | {:>8} | {:>7}\n", row.representation, width,
                 row.dimension, score.k, 100 * score.top1, 100 * score.top5, row.report.train_rows,
                 row.report.test_rows);
    }
  }
  const auto& report = rows.front().report;
  fmt::print("{} classes: chance {:.2f} %, always the commonest class {:.2f} %\n", report.classes,
             100.0 / static_cast<double>(report.classes), 100 * report.largest_class);
  fmt::print("training set: {}, {} images\ntest set: {}, {} images\n", train.name, train.images, test.name,
             test.images);
}

int run(Options options, const comm::Communicator& world) {
  comm::agree(world, "options", [&] { check(options); });
  options.knn.cosine = !options.no_cosine;
  std::vector<Row> rows;
  Set train, test;
  if (!options.train_features.empty()) {
    rows.push_back(compare_tables(options, world, train, test));
  } else {
    Evaluation evaluation(options, world);
    train = evaluation.train(), test = evaluation.test();
    rows = evaluation.rows();
  }
  log::finish_progress();
  if (!world.is_root()) return 0;
  if (options.json) {
    fmt::print("{}\n",
               to_json(rows, options, train, test).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    print_table(rows, train, test);
  }
  return 0;
}

}  // namespace

Run add_eval_knn(CLI::App& command) {
  auto options = std::make_shared<Options>();
  options->knn.k = {10, 20, 200};
  command.add_option("weights", options->weights,
                     "Weights files, checkpoint folders or run folders (their newest checkpoint)");
  command.add_option("--train", options->train, "Labelled shards whose images vote: folder, glob or list");
  command.add_option("--test", options->test, "Labelled shards whose images are classified");
  command.add_option("--train-features", options->train_features, "Instead: a file of `seer features`");
  command.add_option("--test-features", options->test_features, "Instead: a file of `seer features`");
  command.add_option("--k", options->knn.k, "Numbers of neighbours")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->capture_default_str();
  command.add_option("--temperature", options->knn.temperature, "Votes weigh exp(similarity / temperature)")
      ->check(CLI::Range(1e-4, 1e4))
      ->capture_default_str();
  command.add_flag("--no-cosine", options->no_cosine,
                   "Similarity is the plain dot product (features are not normalised)");
  command.add_flag("--baselines", options->baselines, "Also the same network at random and raw pixels");
  command.add_option("--baseline-seed", options->baseline_seed, "Seed of the random network")->capture_default_str();
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  add_eval_choices(command, options->choices);
  command.footer(
      "  mpirun -n 2 seer eval knn runs/demo --train shards/train --test shards/test --baselines\n"
      "  seer eval knn weights.h5 --train cifar/train --test cifar/test --resize 32 --crop 32 --k 20\n"
      "  seer eval knn --train-features train.h5 --test-features test.h5");
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
