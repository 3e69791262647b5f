// SPDX-License-Identifier: Apache-2.0
// seer eval linear: a grid of linear classifiers on frozen features.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "eval_sets.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/linear.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::app {
namespace {

struct Options {
  EvalSets sets;
  std::string protocol = "grid", selection = "held-out";
  eval::LinearTask task;
  config::ProbeProtocol given;  ///< values that were given; the others are the protocol's
  std::string batchnorm, rate_scale, bias_decay;
  double scale_low = 0.08;
  bool features_given = false, no_augmentation = false, json = false;
  std::int64_t seed = 0;
  std::vector<std::string> overridden;  ///< options that replace values of the protocol

  bool augmented() const { return !sets.are_files() && !no_augmentation; }
};

void check(const Options& o) {
  check_sets(o.sets, "linear");
  check_draws(o.task.draws, o.task.subset.takes_all());
  if (!o.task.checkpoint.empty() && o.task.checkpoint == o.task.save_head)
    throw Error(ExitCode::input, "--checkpoint and --save-head name the same file", "give each its own");
  if (o.augmented() && o.sets.choices.whole > 0)
    throw Error(ExitCode::input, "--whole: classifiers would be trained on random crops, and tested on whole images",
                "add --no-augmentation, or leave out --whole");
}

/// The protocol with the given values in place of its own.
config::ProbeProtocol protocol_of(const Options& o) {
  auto out = config::probe_protocol(o.protocol);
  const auto has = [&](const char* name) { return std::ranges::find(o.overridden, name) != o.overridden.end(); };
  const auto take = [&](const char* name, auto member) {
    if (has(name)) out.*member = o.given.*member;
  };
  using P = config::ProbeProtocol;
  if (has("--epochs")) {
    for (auto& milestone : out.milestones) milestone *= o.given.epochs / out.epochs;
    out.epochs = o.given.epochs;
    out.updates = out.least_updates = 0;
  }
  take("--rates", &P::rates);
  take("--decays", &P::decays);
  take("--optimizer", &P::optimizer);
  take("--global-batch", &P::batch);
  take("--updates", &P::updates);
  take("--schedule", &P::schedule);
  take("--milestones", &P::milestones);
  take("--warmup", &P::warmup);
  take("--init", &P::init);
  take("--init-deviation", &P::init_deviation);
  take("--momentum", &P::momentum);
  if (has("--batchnorm"))
    out.batchnorm = o.batchnorm == "both" ? std::vector<std::int64_t>{0, 1}
                    : o.batchnorm == "on" ? std::vector<std::int64_t>{1}
                                          : std::vector<std::int64_t>{0};
  if (has("--rate-scale")) out.rate_per_256 = o.rate_scale == "batch";
  if (has("--bias-decay")) out.bias_decays = o.bias_decay == "on";
  if (out.schedule == "steps" && (out.milestones.empty() || !(out.epochs > 0)))
    throw Error(ExitCode::input, "--schedule steps needs --milestones and --epochs", "give both").as_agreed();
  return out;
}

std::unique_ptr<eval::LinearSource> source_of(const Options& o, const comm::Communicator& world,
                                              const config::ProbeProtocol& protocol) {
  const auto& choices = o.sets.choices;
  if (o.sets.are_files()) {
    auto [train, test] = read_tables(world, o.sets);
    return eval::table_source(world, std::move(train), std::move(test));
  }
  const auto reading = reading_of(choices);
  const auto& texts = o.features_given ? choices.features : protocol.features;
  auto extractor =
      eval::FeatureExtractor::load(world, o.sets.weights.front(), eval::parse_features(texts), choices.device);
  const auto [train, test] = open_sets(world, o.sets);
  eval::warn_of_common(world, eval::my_checksums(train, world), o.sets.train, eval::my_checksums(test, world),
                       o.sets.test);
  if (choices.recalibrate > 0) extractor.recalibrate(world, train, choices.recalibrate, reading);
  if (!o.no_augmentation) return eval::shard_source(world, std::move(extractor), train, test, reading, o.scale_low);
  auto train_table = extractor.table(world, train, reading), test_table = extractor.table(world, test, reading);
  return eval::table_source(world, std::move(train_table), std::move(test_table));
}

/// The values that the classifiers were trained with.
std::string describe(const Options& o, const config::ProbeProtocol& p, const eval::LinearReport& report) {
  return fmt::format(
      "protocol {} ({}){}{}: {} of momentum {}, {} rates{}, decays {}, batch {}, {} updates, {} schedule, {}; {}",
      p.name, p.about, o.overridden.empty() ? "" : " but ", fmt::join(o.overridden, " "), p.optimizer, p.momentum,
      p.rates.size(), p.rate_per_256 ? " x batch / 256" : "", fmt::join(p.decays, " "), p.batch, report.updates,
      p.schedule, p.init,
      o.augmented() ? fmt::format("random crops of {} to 1 of the area to {} pixels, bilinear, and mirrored",
                                  o.scale_low, o.sets.choices.crop)
                    : "no augmentation");
}

/// Of the images that are tested, and without augmentation of all.
std::string preparation_of(const Options& o, const eval::LinearSource& source) {
  return eval::preparation(source.info().recipe) + (o.augmented() ? " (of test and held-out images)" : "");
}

/// `chosen`: there was more than one head to choose from.
nlohmann::json json_of(const eval::LinearRow& row, bool several, bool chosen) {
  const auto figures_of = [&](const eval::LinearFigures& f, const char* suffix) {
    nlohmann::json out;
    const auto put = [&](const char* name, double value) { out[std::string(name) + suffix] = eval::percent(value); };
    if (several) {
      put("map", f.all_points);
      put("map_11_points", f.eleven_points);
    } else {
      put("top1", f.top1);
      put("top5", f.top5);
      put("mean_per_class", f.mean_per_class);
    }
    return out;
  };
  const auto& last = row.draws.back();
  nlohmann::json out = {{"feature", row.feature},
                        {"batchnorm", last.head.batchnorm},
                        {"rate", last.head.rate},
                        {"decay", last.head.decay},
                        {"chosen_by", nullptr}};
  if (chosen) out["chosen_by"] = eval::percent(last.chosen_by);
  const auto summary = eval::summary_of(row);
  out.update(figures_of(summary.mean, ""));
  if (row.draws.size() == 1) return out;
  out.update(figures_of(summary.deviation, "_deviation"));
  for (const auto& draw : row.draws) {
    auto one = figures_of(draw.figures, "");
    one.update({{"batchnorm", draw.head.batchnorm}, {"rate", draw.head.rate}, {"decay", draw.head.decay}});
    out["draws"].push_back(one);
  }
  return out;
}

void print_json(const Options& o, const config::ProbeProtocol& p, const eval::LinearReport& report,
                const eval::LinearSource& source) {
  nlohmann::json out = {{"task", "linear"},
                        {"protocol", p.name},
                        {"overridden", o.overridden},
                        {"settings", describe(o, p, report)},
                        {"preparation", preparation_of(o, source)},
                        {"selection", report.selection},
                        {"targets", report.several ? "multi" : "single"},
                        {"source", source.info().source},
                        {"train", source.train().name},
                        {"test", source.test().name},
                        {"train_images", report.fit_images},
                        {"held_images", report.held_images},
                        {"test_images", report.test_images},
                        {"classes", report.classes},
                        {"heads", report.heads},
                        {"diverged", report.diverged},
                        {"updates", report.updates},
                        {"draws", report.best.draws.size()}};
  for (const auto& row : report.rows) out["rows"].push_back(json_of(row, report.several, report.heads > 1));
  out["best"] = json_of(report.best, report.several, report.heads > 1);
  out["best"]["feature"] = source.columns()[report.best.draws.back().head.feature].feature;
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const Options& o, const config::ProbeProtocol& p, const eval::LinearReport& report,
                 const eval::LinearSource& source) {
  std::size_t width = 11;
  for (const auto& row : report.rows) width = std::max(width, row.feature.size());
  const bool several = report.several, draws = report.best.draws.size() > 1;
  const auto names = several ? std::array{"mAP all", "mAP 11", ""} : std::array{"top-1 %", "top-5 %", "class %"};
  fmt::print("{:{}} | {:>4} | {:>7} | {:>7} | {:>9} | {:>{}} | {:>7} | {:>7}\n", "feature", width, "BN", "rate",
             "decay", "chosen by", names[0], draws ? 15 : 7, names[1], names[2]);
  fmt::print("{}\n", std::string(width + (draws ? 73 : 65), '-'));
  auto rows = report.rows;
  if (rows.size() > 1) rows.push_back(report.best);
  for (const auto& row : rows) {
    const auto [mean, deviation] = eval::summary_of(row);
    const auto& head = row.draws.back().head;
    const double first = several ? mean.all_points : mean.top1,
                 spread = several ? deviation.all_points : deviation.top1;
    fmt::print("{:{}} | {:>4} | {:>7g} | {:>7g} | {:>9} | {:>7.2f}{} | {:>7.2f} | {:>7}\n", row.feature, width,
               head.batchnorm ? "on" : "off", head.rate, head.decay,
               report.heads > 1 ? fmt::format("{:.2f}", 100 * row.draws.back().chosen_by) : "-", 100 * first,
               draws ? fmt::format(" ± {:>5.2f}", 100 * spread) : "", 100 * (several ? mean.eleven_points : mean.top5),
               several ? "" : fmt::format("{:.2f}", 100 * mean.mean_per_class));
  }
  fmt::print("selection: {}, {} heads{}\n{}\nimages: {}\n", report.selection, report.heads,
             report.diverged > 0 ? fmt::format(" ({} diverged)", report.diverged) : "", describe(o, p, report),
             preparation_of(o, source));
  fmt::print(
      "training set: {}, {} images{}{}\ntest set: {}, {} images, {} classes\n", source.train().name, report.fit_images,
      report.held_images > 0 ? fmt::format(" and {} held out", report.held_images) : "",
      draws ? fmt::format(", {} draws: mean and deviation; BN, rate and decay of the last", report.best.draws.size())
            : "",
      source.test().name, report.test_images, report.classes);
}

int run(Options options, const comm::Communicator& world) {
  comm::agree(world, "options", [&] { check(options); });
  auto& task = options.task;
  task.protocol = protocol_of(options);
  if (const auto batch = task.protocol.batch, n = std::int64_t{world.size()}; options.augmented() && batch % n != 0)
    throw Error(ExitCode::input, fmt::format("--global-batch {} cannot be divided among {} ranks", batch, n),
                fmt::format("give a multiple of {}, such as {}", n, (batch + n - 1) / n * n))
        .as_agreed();
  task.select_on_test = options.selection == "test";
  task.seed = task.subset.seed = static_cast<std::uint64_t>(options.seed);
  if (!task.save_head.empty()) refuse_misleading(task.save_head, "HDF5");
  if (!task.checkpoint.empty()) refuse_misleading(task.checkpoint, "HDF5");
  const auto source = source_of(options, world, task.protocol);
  const auto report = eval::evaluate_linear(world, *source, task);
  log::finish_progress();
  if (world.is_root()) (options.json ? print_json : print_table)(options, task.protocol, report, *source);
  return 0;
}

}  // namespace

Run add_eval_linear(CLI::App& command) {
  auto options = std::make_shared<Options>();
  auto& o = *options;
  auto& given = o.given;
  add_sets(command, o.sets);
  for (const std::string task : {"logistic", "svm"}) {  // the program has taken the other task by now
    const auto help = fmt::format("Another name of `seer eval {0}`, with its options: see --{0} --help", task);
    command.add_flag("--" + task, help);
  }
  command.add_option("--protocol", o.protocol,
                     "Whose settings: " + fmt::format("{}", fmt::join(config::probe_protocols(), ", ")));
  command
      .add_option("--selection", o.selection,
                  "How a head is chosen: by a tenth of the training set, or by the test set")
      ->check(CLI::IsMember({"held-out", "test"}));
  command.add_option("--targets", o.task.targets, "One class an image, or several; auto: as the images have")
      ->check(CLI::IsMember({"auto", "single", "multi"}));
  command.add_option("--scale-low", o.scale_low, "Smallest area of a random crop, of the image's")
      ->check(CLI::Range(1e-3, 1.0));
  command.add_flag("--no-augmentation", o.no_augmentation,
                   "Compute the features of all images once, without augmentation");
  add_subset(command, o.task.subset, o.task.draws);
  command.add_option("--seed", o.seed, "Of weights, batches, held part and subsets")->check(CLI::NonNegativeNumber);
  command.add_option("--checkpoint", o.task.checkpoint, "File from which the same command goes on after a kill");
  command.add_option("--checkpoint-every", o.task.checkpoint_every, "Updates")->check(CLI::PositiveNumber);
  command.add_option("--save-head", o.task.save_head, "HDF5 file for the best classifier");
  command.add_flag("--json", o.json, "One JSON object instead of the table");
  std::vector<CLI::Option*> values;
  const auto value = [&](const char* name, auto& into, const char* help) {
    return values.emplace_back(
        command.add_option(name, into, help)->default_str("")->group("Instead of the protocol's"));
  };
  value("--rates", given.rates, "Learning rates")->delimiter(',')->check(CLI::PositiveNumber);
  value("--decays", given.decays, "Weight decays")->delimiter(',')->check(CLI::NonNegativeNumber);
  value("--batchnorm", o.batchnorm, "On the features")->check(CLI::IsMember({"on", "off", "both"}));
  value("--optimizer", given.optimizer, "Rule of the updates")->check(CLI::IsMember({"sgd", "nesterov", "adamw"}));
  value("--momentum", given.momentum, "Momentum (adamw: beta 1)")->check(CLI::Range(0.0, 0.9999));
  value("--global-batch", given.batch, "Images of an update, of all ranks")->check(CLI::Range(1, 1 << 20));
  auto* epochs = value("--epochs", given.epochs, "Passes over the training images")->check(CLI::PositiveNumber);
  value("--updates", given.updates, "Length in updates")->check(CLI::PositiveNumber)->excludes(epochs);
  value("--schedule", given.schedule, "Of the rate")->check(CLI::IsMember({"cosine", "steps"}));
  value("--milestones", given.milestones, "Epochs after which the rate falls to a tenth")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  value("--warmup", given.warmup, "Part of the updates in which the rate rises")->check(CLI::Range(0.0, 0.99));
  value("--rate-scale", o.rate_scale, "batch: rates x batch / 256")->check(CLI::IsMember({"batch", "none"}));
  value("--bias-decay", o.bias_decay, "Whether biases decay")->check(CLI::IsMember({"on", "off"}));
  value("--init", given.init, "Initial weights")->check(CLI::IsMember({"normal", "uniform", "zero"}));
  value("--init-deviation", given.init_deviation, "Of normal initial weights")->check(CLI::PositiveNumber);
  add_eval_choices(command, o.sets.choices);
  const auto* features = command.get_option("--features");
  return [options, values, features](const comm::Communicator& world) {
    options->features_given = features->count() > 0;
    for (const auto* option : values)
      if (option->count() > 0) options->overridden.push_back("--" + option->get_lnames().front());
    return run(*options, world);
  };
}

}  // namespace seer::app
