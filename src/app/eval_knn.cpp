// SPDX-License-Identifier: Apache-2.0
// seer eval knn: a table of k-NN accuracies, with the baselines that they must beat.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <span>

#include "options.hpp"
#include "seer/app/command.hpp"
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
  bool baselines = false, json = false;
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

struct Result {
  Set train, test;
  std::vector<Row> rows;
};

void check(const Options& o) {
  const bool files = !o.train_features.empty() || !o.test_features.empty();
  if (files && (o.train_features.empty() || o.test_features.empty() || !o.weights.empty() || !o.train.empty() ||
                !o.test.empty() || o.baselines)) {
    throw Error(ExitCode::input,
                "--train-features and --test-features must be given together, without weights, --train, --test and "
                "--baselines");
  }
  if (files && o.choices != EvalChoices()) {
    throw Error(ExitCode::input,
                "--train-features and --test-features are compared as they are: --layer, --resize, --crop, --batch, "
                "--device and --recalibrate-batchnorm have no effect on them",
                "leave these options out, or give them to seer features");
  }
  if (!files && (o.train.empty() || o.test.empty()))
    throw Error(ExitCode::input, "eval knn needs --train and --test shards, or --train-features and --test-features");
  if (!files && o.weights.empty() && !o.baselines)
    throw Error(ExitCode::input, "eval knn needs weights, a checkpoint or a run folder to evaluate (or --baselines)");
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
      for (const auto& [set, path] : {std::pair(&train_, &options.train), std::pair(&test_, &options.test)})
        if (!set->has_labels())
          throw Error(ExitCode::file, fmt::format("k-NN: {} has no labels", *path), "pack it with --labels folder");
      eval::common_classes(train_.classes(), options.train, test_.classes(), options.test);
    });
    eval::warn_of_common(world, eval::my_checksums(train_, world), options.train, eval::my_checksums(test_, world),
                         options.test);
  }

  Result result() {
    for (const auto& path : options_.weights) {
      auto extractor = eval::FeatureExtractor::load(world_, path, layer_of(options_.choices), options_.choices.device);
      score(extractor.source(), extractor);
      if (options_.choices.recalibrate > 0) {
        extractor.recalibrate(world_, train_, options_.choices.recalibrate, reading_);
        score(extractor.source() + ", BatchNorm recalibrated", extractor);
      }
      if (options_.baselines) random_network(extractor);
    }
    if (options_.baselines) {
      auto train = eval::pixel_table(world_, train_, kPixelSide, reading_);
      auto test = eval::pixel_table(world_, test_, kPixelSide, reading_);
      eval::remove_mean(world_, train, test);
      score(fmt::format("raw pixels, {0}x{0}, mean removed", kPixelSide), train, test);
    }
    return {{options_.train, train_.images()}, {options_.test, test_.images()}, std::move(rows_)};
  }

 private:
  /// The same architecture as initialised; and again with its own BatchNorm statistics, the stronger baseline.
  void random_network(const eval::FeatureExtractor& trained) {
    const auto& model = trained.model();
    const std::string name = model.preset.empty() ? "same network" : model.trunk + " " + model.preset;
    if (!seen_.insert(name).second && !model.preset.empty()) return;
    auto random = trained.untrained(static_cast<std::uint64_t>(options_.baseline_seed));
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
  std::set<std::string> seen_;
};

/// Compares two files of `seer features`, which must have been computed alike.
Result compare_tables(const Options& options, const comm::Communicator& world) {
  const auto &train_name = options.train_features, &test_name = options.test_features;
  const auto train = eval::read_features(world, train_name), test = eval::read_features(world, test_name);
  comm::agree(world, "comparing the tables",
              [&] { eval::require_alike(train.info, train_name, test.info, test_name); });
  Result out;
  out.train = {fmt::format("{} (features of {})", train_name, train.info.data), train.info.images};
  out.test = {fmt::format("{} (features of {})", test_name, test.info.data), test.info.images};
  std::array<std::int64_t, 2> checksums = {static_cast<std::int64_t>(train.checksum.size()),
                                           static_cast<std::int64_t>(test.checksum.size())};
  world.all_reduce(std::span(checksums));
  if (checksums[0] > 0 && checksums[1] > 0) {
    eval::warn_of_common(world, train.checksum, out.train.name, test.checksum, out.test.name);
  } else if (train.info.data == test.info.data) {
    log::warn(
        fmt::format("{} and {} are both features of {}: if the images are the same, each is its own nearest neighbour",
                    train_name, test_name, train.info.data));
  }
  out.rows.push_back({fmt::format("{} ({})", train.info.source, train.info.layer), train.info.dimension,
                      eval::knn_report(world, train, test, options.knn)});
  return out;
}

void print_json(const Result& result, const eval::KnnOptions& knn) {
  nlohmann::json out = {{"temperature", knn.temperature},
                        {"cosine", knn.cosine},
                        {"train", result.train.name},
                        {"test", result.test.name},
                        {"rows", nlohmann::json::array()}};
  for (const auto& [representation, dimension, report] : result.rows) {
    for (const auto& score : report.scores) {
      out["rows"].push_back({{"representation", representation},
                             {"dimension", dimension},
                             {"k", score.k},
                             {"top1", score.top1},
                             {"top5", score.top5},
                             {"train_images", report.train_rows},
                             {"test_images", report.test_rows},
                             {"classes", report.classes},
                             {"chance", 1.0 / static_cast<double>(report.classes)},
                             {"largest_class", report.largest_class}});
    }
  }
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const Result& result) {
  std::size_t width = 14;
  for (const auto& row : result.rows) width = std::max(width, row.representation.size());
  fmt::print("{:{}} | {:>6} | {:>5} | {:>7} | {:>7} | {:>8} | {:>7}\n", "representation", width, "dims", "k", "top-1 %",
             "top-5 %", "n train", "n test");
  fmt::print("{}\n", std::string(width + 58, '-'));
  for (const auto& [representation, dimension, report] : result.rows) {
    for (const auto& score : report.scores) {
      fmt::print("{:{}} | {:>6} | {:>5} | {:>7.2f} | {:>7.2f} | {:>8} | {:>7}\n", representation, width, dimension,
                 score.k, 100 * score.top1, 100 * score.top5, report.train_rows, report.test_rows);
    }
  }
  const auto& report = result.rows.front().report;
  fmt::print("{} classes: chance {:.2f} %, always the commonest class {:.2f} %\n", report.classes,
             100.0 / static_cast<double>(report.classes), 100 * report.largest_class);
  fmt::print("training set: {}, {} images\ntest set: {}, {} images\n", result.train.name, result.train.images,
             result.test.name, result.test.images);
}

int run(const Options& options, const comm::Communicator& world) {
  comm::agree(world, "options", [&] { check(options); });
  const auto result =
      options.train_features.empty() ? Evaluation(options, world).result() : compare_tables(options, world);
  log::finish_progress();
  if (world.is_root()) options.json ? print_json(result, options.knn) : print_table(result);
  return 0;
}

}  // namespace

Run add_eval_knn(CLI::App& command) {
  auto options = std::make_shared<Options>();
  options->knn.k = {10, 20, 200};
  command
      .add_option("weights", options->weights,
                  "Weights files, checkpoint folders or run folders (their newest checkpoint)")
      ->default_str("");
  command.add_option("--train", options->train, "Labelled shards whose images vote: folder, glob or list");
  command.add_option("--test", options->test, "Labelled shards whose images are classified");
  command.add_option("--train-features", options->train_features, "Instead: a file of `seer features`");
  command.add_option("--test-features", options->test_features, "Instead: a file of `seer features`");
  command.add_option("--k", options->knn.k, "Numbers of neighbours")
      ->delimiter(',')
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  command.add_option("--temperature", options->knn.temperature, "Votes weigh exp(similarity / temperature)")
      ->check(CLI::Range(1e-4, 1e4));
  command.add_flag_callback(
      "--no-cosine", [&cosine = options->knn.cosine] { cosine = false; },
      "Similarity is the plain dot product (features are not normalised)");
  command.add_flag("--baselines", options->baselines, "Also the same network at random and raw pixels");
  command.add_option("--baseline-seed", options->baseline_seed, "Seed of the random network");
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  add_eval_choices(command, options->choices);
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
