// SPDX-License-Identifier: Apache-2.0
// seer eval knn: a table of k-NN accuracies, with the baselines that they must beat.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <set>
#include <span>

#include "eval_sets.hpp"
#include "knn_output.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/memory.hpp"
#include "seer/eval/classes.hpp"
#include "seer/eval/features.hpp"
#include "seer/eval/knn.hpp"

namespace seer::app {
namespace {

constexpr std::int64_t kPixelSide = 8;
constexpr std::int64_t kBaselineImages = 1024;  ///< for the BatchNorm statistics of a random network

struct Options {
  EvalSets sets;
  std::string protocol = "seer", select = "test";
  eval::KnnOptions knn;
  data::SubsetChoice few;
  std::int64_t draws = 1, subset_seed = 0;
  KnnExtras extras;
  bool baselines = false, json = false;
  std::int64_t baseline_seed = 0;
};

void check(const Options& o) {
  check_sets(o.sets, "knn", !o.baselines);
  if (o.sets.are_files() && o.baselines)
    throw Error(ExitCode::input, "--baselines needs shards", "give --train and --test instead of files of features");
  check_draws(o.draws, o.few.takes_all());
  if (o.knn.leave_out == eval::LeaveOut::first && !o.few.takes_all())
    throw Error(ExitCode::input,
                "--skip-first with --per-class or --fraction: images that are not drawn would lose a true neighbour",
                "use --skip-same, which leaves out only the image itself");
}

/// The scores of training images, at most 10000, that are classified by the others. Collective.
std::vector<eval::KnnScore> scores_on_training(const comm::Communicator& world, const eval::FeatureTable& train,
                                               eval::KnnOptions knn) {
  constexpr double kMostRows = 10000;
  knn.leave_out = eval::LeaveOut::first;
  const double fraction = kMostRows / static_cast<double>(train.info.images);
  return (fraction < 1 ? eval::knn_report(world, train, eval::few_rows(world, train, {.fraction = fraction}), knn)
                       : eval::knn_report(world, train, train, knn))
      .scores;
}

/// Scores one feature of the tables, with all training rows or with some draws of a few. Collective.
KnnRow score_feature(const comm::Communicator& world, const Options& options, const std::string& name,
                     const eval::FeatureTable& train, const eval::FeatureTable& test,
                     const eval::FeatureColumns& columns) {
  auto knn = options.knn;
  knn.columns = columns;
  std::vector<eval::KnnReport> reports;
  std::vector<eval::KnnScore> on_training;
  for (std::int64_t draw = 0; draw < options.draws; ++draw) {
    auto choice = options.few;
    choice.seed += static_cast<std::uint64_t>(draw);
    std::optional<eval::FeatureTable> few;
    if (!choice.takes_all()) few = eval::few_rows(world, train, choice);
    const auto& voters = few ? *few : train;
    reports.push_back(eval::knn_report(world, voters, test, knn));
    if (draw == 0 && options.select == "train") on_training = scores_on_training(world, voters, knn);
  }
  KnnRow row{.representation = name,
             .feature = columns.feature,
             .dimension = columns.width,
             .recipe = train.info.recipe,
             .lines = {},
             .report = {},
             .confusion = {}};
  for (std::size_t i = 0; i < reports.front().scores.size(); ++i) {
    const auto of = [&](double eval::KnnScore::*figure) {
      std::vector<double> values;
      for (const auto& report : reports) values.push_back(report.scores[i].*figure);
      return eval::spread_of(values);
    };
    const auto& score = reports.front().scores[i];
    row.lines.push_back({score.k, score.temperature, of(&eval::KnnScore::top1), of(&eval::KnnScore::top5),
                         of(&eval::KnnScore::mean_per_class)});
    const double merit = on_training.empty() ? row.lines[i].top1.mean : on_training[i].top1;
    if (i > 0 && merit <= row.merit) continue;
    row.best = i;
    row.merit = merit;
  }
  if (options.extras.per_class || options.extras.confusion) {
    for (const auto& report : reports) row.confusion.add(report.truth, report.scores[row.best].predicted);
    row.confusion.sum(world);
  }
  row.report = std::move(reports.front());
  return row;
}

/// One row for each feature of the tables.
void score(const comm::Communicator& world, const Options& options, const std::string& name,
           const eval::FeatureTable& train, const eval::FeatureTable& test, std::vector<KnnRow>& rows) {
  const auto columns = eval::columns_of(train.info);
  for (const auto& feature : columns) {
    const auto full = columns.size() > 1 ? fmt::format("{} ({})", name, feature.feature) : name;
    eval::require_different(world, fmt::format("{} on {}", full, train.info.name()), {&train}, feature);
    rows.push_back(score_feature(world, options, full, train, test, feature));
  }
}

/// Warns of test images that are in the training set, too, unless they are left out there. Refuses --skip-first if only
/// some are. Collective.
void check_common(const comm::Communicator& world, const Options& options, std::span<const std::uint64_t> train,
                  const std::string& train_name, std::span<const std::uint64_t> test, const std::string& test_name) {
  if (options.knn.leave_out == eval::LeaveOut::nothing)
    return eval::warn_of_common(world, train, train_name, test, test_name);
  const auto common = eval::count_common(world, train, test);
  const auto images = world.all_reduce(static_cast<std::int64_t>(test.size()), comm::Op::sum);
  comm::agree(world, "leaving out neighbours", [&] {
    if (options.knn.leave_out == eval::LeaveOut::same || common == images) return;
    throw Error(ExitCode::input,
                fmt::format("--skip-first: {} of the {} images of {} are in {}; the others would lose a true neighbour",
                            common, images, test_name, train_name),
                common > 0 ? "use --skip-same, which leaves out only the image itself" : "leave out --skip-first");
  });
}

class Evaluation {
 public:
  Evaluation(const Options& options, const comm::Communicator& world)
      : options_(options),
        world_(world),
        sets_(open_sets(world, options.sets)),
        train_(sets_.first),
        test_(sets_.second),
        reading_(reading_of(options.sets.choices)) {
    // Checked before the first feature is computed, not after the last.
    comm::agree(world, "k-NN labels", [&] {
      eval::common_classes(train_.classes(), options.sets.train, test_.classes(), options.sets.test);
    });
    check_common(world, options, eval::my_checksums(train_, world), options.sets.train,
                 eval::my_checksums(test_, world), options.sets.test);
  }

  KnnResult result() {
    for (const auto& path : options_.sets.weights) {
      auto extractor = eval::FeatureExtractor::load(world_, path, eval::parse_features(options_.sets.choices.features),
                                                    options_.sets.choices.device);
      score(extractor.source(), extractor);
      if (options_.sets.choices.recalibrate > 0) {
        extractor.recalibrate(world_, train_, options_.sets.choices.recalibrate, reading_);
        score(extractor.source() + ", BatchNorm recalibrated", extractor);
      }
      if (options_.baselines) random_network(extractor);
    }
    if (options_.baselines) {
      auto train = eval::pixel_table(world_, train_, kPixelSide, reading_);
      auto test = eval::pixel_table(world_, test_, kPixelSide, reading_);
      eval::remove_mean(world_, train, test);
      app::score(world_, options_, fmt::format("raw pixels, {0}x{0}, mean removed", kPixelSide), train, test, rows_);
    }
    KnnResult out;
    out.train = {options_.sets.train, train_.images()};
    out.test = {options_.sets.test, test_.images()};
    out.rows = std::move(rows_);
    return out;
  }

 private:
  /// The same architecture as initialised; and again with its own BatchNorm statistics, the stronger baseline.
  void random_network(const eval::FeatureExtractor& trained) {
    const auto& model = trained.model();
    const std::string name = model.preset.empty() ? "same network" : model.trunk + " " + model.preset;
    if (!seen_.insert(name).second && !model.preset.empty()) return;
    auto random = trained.untrained(static_cast<std::uint64_t>(options_.baseline_seed));
    score(name + ", random initialisation", random);
    random.recalibrate(world_, train_, std::max(kBaselineImages, options_.sets.choices.recalibrate), reading_);
    score(name + ", random initialisation, BatchNorm recalibrated", random);
  }

  void score(const std::string& name, eval::FeatureExtractor& extractor) {
    app::score(world_, options_, name, extractor.table(world_, train_, reading_),
               extractor.table(world_, test_, reading_), rows_);
  }

  const Options& options_;
  const comm::Communicator& world_;
  std::pair<data::DataSet, data::DataSet> sets_;
  const data::DataSet &train_, &test_;
  data::EvalOptions reading_;
  std::vector<KnnRow> rows_;
  std::set<std::string> seen_;
};

/// Compares two files of `seer features`, which must have been computed alike.
KnnResult compare_tables(const Options& options, const comm::Communicator& world) {
  const auto &train_name = options.sets.train_features, &test_name = options.sets.test_features;
  const auto [train, test] = read_tables(world, options.sets);
  KnnResult out;
  out.train = {train.info.name(), train.info.images};
  out.test = {test.info.name(), test.info.images};
  std::array<std::int64_t, 2> checksums = {static_cast<std::int64_t>(train.checksum.size()),
                                           static_cast<std::int64_t>(test.checksum.size())};
  world.all_reduce(std::span(checksums));
  if (checksums[0] > 0 && checksums[1] > 0) {
    check_common(world, options, train.checksum, out.train.name, test.checksum, out.test.name);
  } else if (train.info.data == test.info.data && options.knn.leave_out == eval::LeaveOut::nothing) {
    log::warn(
        fmt::format("{} and {} are both features of {}: if the images are the same, each is its own nearest neighbour",
                    train_name, test_name, train.info.data));
  }
  const bool single = train.info.columns.empty();
  score(world, options, single ? fmt::format("{} ({})", train.info.source, train.info.layer) : train.info.source, train,
        test, out.rows);
  return out;
}

int run(const Options& options, const comm::Communicator& world) {
  comm::agree(world, "options", [&] { check(options); });
  auto result = options.sets.are_files() ? compare_tables(options, world) : Evaluation(options, world).result();
  result.protocol = options.protocol;
  result.options = options.knn;
  result.few = options.few;
  result.draws = options.few.takes_all() ? 0 : options.draws;
  result.select = options.select;
  const auto peak = world.all_reduce(static_cast<std::int64_t>(device::peak_resident_bytes()), comm::Op::max);
  log::finish_progress();
  log::info(fmt::format("peak memory of a rank {:.2f} GiB", static_cast<double>(peak) / (1 << 30)));
  if (world.is_root()) options.json ? print_json(result, options.extras) : print_table(result, options.extras);
  return 0;
}

/// Completes the options that follow from others. Not collective, no error.
void complete(Options& options, bool own_settings) {
  const auto& protocols = eval::knn_protocols();
  const auto named = std::ranges::find(protocols, options.protocol, &eval::KnnProtocol::name);
  if (named != protocols.end()) {
    options.knn.k = named->k;
    options.knn.temperature = {named->temperature};
    options.knn.cosine = named->cosine;
  } else if (own_settings) {
    options.protocol = "custom";
  }
  options.few.seed = static_cast<std::uint64_t>(options.subset_seed);
}

}  // namespace

Run add_eval_knn(CLI::App& command) {
  auto options = std::make_shared<Options>();
  options->knn.k = {10, 20, 200};
  options->knn.all_known = true;
  add_sets(command, options->sets, CLI::detail::expected_max_vector_size);
  std::vector<std::string> names = {"seer"};
  for (const auto& protocol : eval::knn_protocols()) names.emplace_back(protocol.name);
  auto* const k = command.add_option("--k", options->knn.k, "Numbers of neighbours")
                      ->delimiter(',')
                      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  auto* const temperature =
      command.add_option("--temperature", options->knn.temperature, "Votes weigh exp(similarity / temperature)")
          ->delimiter(',')
          ->check(CLI::Range(1e-4, 1e4));
  auto* const plain = command.add_flag_callback(
      "--no-cosine", [&cosine = options->knn.cosine] { cosine = false; },
      "Similarity is the plain dot product (features are not normalised)");
  command
      .add_option("--protocol", options->protocol,
                  "Settings of a published evaluation instead: k, temperature and normalisation")
      ->check(CLI::IsMember(names))
      ->excludes(k)
      ->excludes(temperature)
      ->excludes(plain);
  command
      .add_option("--select", options->select,
                  "Where the best k and temperature are chosen: on the test set, or on the training set, whose images "
                  "(at most 10000) are classified by the others")
      ->check(CLI::IsMember({"test", "train"}));
  auto* const first = command.add_flag_callback(
      "--skip-first", [&out = options->knn.leave_out] { out = eval::LeaveOut::first; },
      "For a set against itself: each image's nearest neighbour does not vote");
  command
      .add_flag_callback(
          "--skip-same", [&out = options->knn.leave_out] { out = eval::LeaveOut::same; },
          "Training images with the same bytes as the test image do not vote")
      ->excludes(first);
  add_subset(command, options->few, options->draws);
  command.add_option("--subset-seed", options->subset_seed, "Seed of the first draw")->check(CLI::NonNegativeNumber);
  command.add_flag("--per-class-table", options->extras.per_class, "Also the accuracy of each class, of the best row");
  command.add_flag("--confusion", options->extras.confusion,
                   "Also the most frequent errors of the best row (--json: all pairs of classes)");
  command.add_flag("--baselines", options->baselines, "Also the same network at random and raw pixels");
  command.add_option("--baseline-seed", options->baseline_seed, "Seed of the random network");
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  add_eval_choices(command, options->sets.choices);
  return [options, k, temperature, plain](const comm::Communicator& world) {
    complete(*options, k->count() + temperature->count() + plain->count() > 0);
    return run(*options, world);
  };
}

}  // namespace seer::app
