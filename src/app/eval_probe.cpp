// SPDX-License-Identifier: Apache-2.0
#include "eval_probe.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/metrics.hpp"

namespace seer::app {
namespace {

struct Line {
  std::string feature;
  std::int64_t dimension = 0;
  std::uint64_t test_images = 0;
  std::size_t classes = 0;
  bool several = false;
  eval::ProbeRow row;
};

void check(const ProbeChoices& o, const std::string& task) {
  check_sets(o.sets, task);
  check_draws(o.sizes.draws, o.sizes.per_class.empty() && o.sizes.fractions.empty());
  for (const auto* input : {&o.sets.train_features, &o.sets.test_features}) {
    std::error_code none;
    if (!o.scores.empty() && !input->empty() && std::filesystem::equivalent(o.scores, *input, none))
      throw Error(ExitCode::input,
                  fmt::format("--scores {} would replace the features that it is computed from", o.scores),
                  "choose another name");
  }
  if (!o.scores.empty() && (o.sizes.per_class.size() + o.sizes.fractions.size() > 1 || o.sizes.draws > 1))
    throw Error(ExitCode::input, "--scores with several draws or sizes: one file holds the scores of one training");
}

std::pair<eval::FeatureTable, eval::FeatureTable> tables(const comm::Communicator& world, const ProbeChoices& o) {
  const auto& choices = o.sets.choices;
  if (o.sets.are_files()) return read_tables(world, o.sets);
  const auto [train, test] = open_sets(world, o.sets);
  auto extractor = eval::FeatureExtractor::load(world, o.sets.weights.front(), eval::parse_features(choices.features),
                                                choices.device);
  const auto reading = reading_of(choices);
  if (choices.recalibrate > 0) extractor.recalibrate(world, train, choices.recalibrate, reading);
  auto of_train = extractor.table(world, train, reading);
  return {std::move(of_train), extractor.table(world, test, reading)};
}

/// The decision values of the test images, as a features file.
void write_scores(const comm::Communicator& world, const std::string& path, const eval::LinearModel& model,
                  const eval::Examples& test, const eval::FeatureTable& table) {
  eval::FeatureTable out;
  out.info = table.info;
  out.info.layer = "scores";
  out.info.columns.clear();
  out.info.classes = test.classes;
  out.info.images = test.all;
  out.info.dimension = model.classes;
  out.first = test.first;
  out.values = model.scores(test, 0, test.rows());
  out.labels = test.labels;
  for (const auto row : test.table_rows) {
    out.index.push_back(table.index[row]);
    if (!table.checksum.empty()) out.checksum.push_back(table.checksum[row]);
  }
  out.checksum.resize(test.rows());
  out.bad.assign(test.rows(), 0);
  eval::FeatureFileWriter file(world, path, out.info);
  file.write(out);
  file.close();
}

/// The row with the largest training set that was chosen by the best figure; tested best where nothing was chosen.
const Line& best_of(const std::vector<Line>& lines) {
  const auto rank = [](const Line& line) {
    return std::tuple(line.row.train_images, line.row.choice, line.several ? line.row.all_points : line.row.top1);
  };
  return *std::ranges::max_element(lines, {}, rank);
}

std::string size_of(const eval::ProbeRow& row) {
  return row.per_class > 0  ? fmt::format("{}", row.per_class)
         : row.fraction < 1 ? fmt::format("{:g} %", 100 * row.fraction)
                            : "all";
}

const std::string& selection_of(const Line& line, const ProbeText& text) {
  return line.row.selection.empty() ? text.selection : line.row.selection;
}

/// How C was chosen; for each number of images of a class where that differs.
std::string selection_of(const std::vector<Line>& lines, const ProbeText& text) {
  std::vector<std::string> rules, of_sizes;
  for (const auto& line : lines) {
    const auto& rule = selection_of(line, text);
    const auto of_size = fmt::format("{}: {}", size_of(line.row), rule);
    if (std::ranges::find(rules, rule) == rules.end()) rules.push_back(rule);
    if (std::ranges::find(of_sizes, of_size) == of_sizes.end()) of_sizes.push_back(of_size);
  }
  return fmt::format("{}", fmt::join(rules.size() == 1 ? rules : of_sizes, "; "));
}

nlohmann::json json_of(const Line& line, const ProbeText& text) {
  const auto& r = line.row;
  nlohmann::json out = {{"feature", line.feature},
                        {"dimension", line.dimension},
                        {"train_images", r.train_images},
                        {"test_images", line.test_images},
                        {"classes", line.classes},
                        {text.parameter, r.c},
                        {"draws", r.draws},
                        {"selection", selection_of(line, text)},
                        {"unconverged", r.unconverged}};
  const auto percent = [&](const char* name, double value) { out[name] = eval::percent(value); };
  if (r.per_class > 0)
    out["per_class"] = r.per_class;
  else
    out["fraction"] = r.fraction;
  if (r.choice > 0) percent("choice", r.choice);
  if (!line.several) {
    percent("top1", r.top1);
    percent("top5", r.top5);
    percent("mean_per_class", r.mean_per_class);
    percent("top1_deviation", r.top1_deviation);
  }
  if (r.all_points > 0) {
    percent("map", r.all_points);
    percent("map_11_points", r.eleven_points);
    percent("map_deviation", r.all_points_deviation);
  }
  return out;
}

void print_table(const std::vector<Line>& lines, const ProbeText& text, const std::string& preparation) {
  std::size_t width = 7;
  for (const auto& line : lines) width = std::max(width, line.feature.size());
  fmt::print("{:{}} | {:>6} | {:>11} | {:>7} | {:>9} | {:>15} | {:>7} | {:>9} | {:>15} | {:>8}\n", "feature", width,
             "dims", "of a class", "n train", text.parameter, "top-1 %", "top-5 %", "per class", "mAP %", "11-point");
  fmt::print("{}\n", std::string(width + 115, '-'));
  const auto with = [](double mean, double deviation, std::int64_t draws) {
    return draws > 1 ? fmt::format("{:.2f} +- {:.2f}", 100 * mean, 100 * deviation) : fmt::format("{:.2f}", 100 * mean);
  };
  for (const auto& line : lines) {
    const auto& r = line.row;
    const auto one = [&](double value) { return line.several ? std::string("-") : fmt::format("{:.2f}", 100 * value); };
    fmt::print("{:{}} | {:>6} | {:>11} | {:>7} | {:>9.4g} | {:>15} | {:>7} | {:>9} | {:>15} | {:>8}\n", line.feature,
               width, line.dimension, size_of(r), r.train_images, r.c,
               line.several ? "-" : with(r.top1, r.top1_deviation, r.draws), one(r.top5), one(r.mean_per_class),
               r.all_points > 0 ? with(r.all_points, r.all_points_deviation, r.draws) : "-",
               r.all_points > 0 ? fmt::format("{:.2f}", 100 * r.eleven_points) : "-");
  }
  const auto& best = best_of(lines);
  fmt::print("{} classes, {} test images; mAP: all points of the envelope, and VOC07's 11-point rule\n", best.classes,
             best.test_images);
  fmt::print("protocol: {}\nimages: {}\nselection: {}\n", text.protocol, preparation, selection_of(lines, text));
  std::int64_t unconverged = 0;
  for (const auto& line : lines) unconverged += line.row.unconverged;
  if (unconverged > 0) fmt::print("{} fits {}\n", unconverged, text.limit);
  if (best.row.draws > 1) fmt::print("+-: standard deviation {}\n", text.deviation);
  if (lines.size() > 1) fmt::print("best: {} with {} training images\n", best.feature, best.row.train_images);
}

}  // namespace

std::string grid_text(const std::vector<double>& values) {
  return values.size() == 1 ? fmt::format("{:g}", values[0])
                            : fmt::format("{:g} to {:g} ({} values)", values.front(), values.back(), values.size());
}

void add_probe_choices(CLI::App& command, ProbeChoices& o) {
  add_sets(command, o.sets);
  command
      .add_option("--per-class", o.sizes.per_class, "Train on so many images of each class; several numbers: a table")
      ->delimiter(',')
      ->check(CLI::PositiveNumber)
      ->default_str("");
  command.add_option("--fraction", o.sizes.fractions, "Train on this share of each class; several numbers: a table")
      ->delimiter(',')
      ->check(CLI::Range(1e-9, 1.0))
      ->default_str("");
  command.add_option("--draws", o.sizes.draws, "How often images are drawn; figures are means and deviations")
      ->check(CLI::Range(1, 1000));
  command.add_option("--seed", o.sizes.seed, "Of the first draw, and of held-out rows");
  command.add_option("--scores", o.scores, "HDF5 file to write: decision values of the test images, as features");
  command.add_flag("--json", o.json, "One JSON object instead of the table");
  add_eval_choices(command, o.sets.choices);
}

int run_probe(const comm::Communicator& world, const ProbeChoices& o, const ProbeText& text,
              const std::function<std::vector<eval::ProbeRow>(eval::ExamplePair& pair)>& probe) {
  comm::agree(world, "options", [&] { check(o, text.task); });
  const auto [train, test] = tables(world, o);
  if (const auto common = eval::count_common(world, train.checksum, test.checksum); common > 0)
    log::warn(
        fmt::format("{} of the {} test images are training images as well: the figures do not hold for new images",
                    common, test.info.images));
  const auto columns = eval::columns_of(train.info);
  if (!o.scores.empty() && columns.size() > 1)
    throw Error(ExitCode::input, fmt::format("--scores with {} features: one file holds those of one", columns.size()))
        .as_agreed();
  std::vector<Line> lines;
  for (const auto& feature : columns) {
    auto pair = eval::make_examples(world, train, test, feature);
    for (auto& row : probe(pair))
      lines.push_back({feature.feature, feature.width, pair.test.all, pair.train.classes.size(), pair.train.several,
                       std::move(row)});
    if (!o.scores.empty()) write_scores(world, o.scores, lines.back().row.model, pair.test, test);
  }
  log::finish_progress();
  if (!world.is_root()) return 0;
  if (!o.json) return print_table(lines, text, eval::preparation(train.info.recipe)), 0;
  nlohmann::json out = {{"task", text.task},
                        {"protocol", text.protocol},
                        {"selection", selection_of(lines, text)},
                        {"preparation", eval::preparation(train.info.recipe)},
                        {"train", train.info.name()},
                        {"test", test.info.name()},
                        {"source", train.info.source},
                        {"deviation", text.deviation},
                        {"rows", nlohmann::json::array()},
                        {"best", json_of(best_of(lines), text)}};
  for (const auto& line : lines) out["rows"].push_back(json_of(line, text));
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return 0;
}

}  // namespace seer::app
