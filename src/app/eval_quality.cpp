// SPDX-License-Identifier: Apache-2.0
// seer eval quality: figures of features that need no labels.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/eval/quality.hpp"
#include "seer/h5/file.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string weights, data, features_file, views_file;
  std::int64_t images = 0, views = 10, view_images = 1000;
  std::vector<std::int64_t> alpha_range = {10, 100};
  eval::QualityOptions quality;
  EvalChoices choices;
  bool json = false;
};

/// What a file of weights says about its crops and prototypes.
struct About {
  std::string config;  ///< of the run; "" for weights without one
  std::vector<float> prototypes;
  std::int64_t prototype_count = 0;
};

/// What is printed.
struct Report {
  std::string source, data, crops;
  std::vector<std::string> features;
  std::vector<eval::Quality> figures;
  std::optional<eval::PrototypeUsage> prototypes;
  eval::QualityOptions options;
};

void check(const Options& o) {
  const bool file = !o.features_file.empty();
  if (file == !o.weights.empty())
    throw Error(ExitCode::input,
                "eval quality needs weights, a checkpoint or a run folder with --data, or --features-file");
  if (file && !o.data.empty()) throw Error(ExitCode::input, "--features-file and --data exclude each other");
  if (file && o.choices != EvalChoices())
    throw Error(ExitCode::input,
                "--features-file is measured as it is: --features, --resize, --crop, --batch, --device and "
                "--recalibrate-batchnorm have no effect on it",
                "leave these options out, or give them to seer features");
  if (file && o.images > 0)
    throw Error(ExitCode::input, "--images has no effect on --features-file: all its rows are measured",
                "leave it out, or give seer features fewer images");
  if (!file && o.data.empty()) throw Error(ExitCode::input, "eval quality needs the shards of --data");
  if (!file && !o.views_file.empty()) throw Error(ExitCode::input, "--views-file belongs to --features-file");
  if (!o.views_file.empty() && o.views < 2)
    throw Error(ExitCode::input, fmt::format("--views {}: LiDAR and alignment need at least two views", o.views));
  if (o.views == 1) throw Error(ExitCode::input, "--views 1: wanted at least 2, or 0 for no figures of views");
  if (o.alpha_range[0] >= o.alpha_range[1])
    throw Error(ExitCode::input,
                fmt::format("--alpha-range {}: wanted two ascending numbers", fmt::join(o.alpha_range, " ")));
}

About read_about(const comm::Communicator& world, const std::string& path) {
  namespace fs = std::filesystem;
  About out;
  comm::agree(world, "reading what the weights say", [&] {
    if (!world.is_root()) return;
    const auto found = checkpoint::resolve(path);
    const auto file = h5::File::open(fs::is_directory(found) ? (fs::path(found) / "state.h5").string() : found);
    if (file.has("/", "config")) out.config = file.get_string("/", "config");
    const std::string name = "/model/prototypes.weight";
    if (!file.exists(name)) return;
    const auto shape = file.describe(name);
    if (shape.dims.size() != 2) return;
    out.prototypes = file.read_all<float>(name, h5::Type::f32);
    out.prototype_count = static_cast<std::int64_t>(shape.dims[0]);
  });
  world.broadcast(out.config);
  world.broadcast(&out.prototype_count, sizeof out.prototype_count);
  std::uint64_t size = out.prototypes.size();
  world.broadcast(&size, sizeof size);
  out.prototypes.resize(size);
  world.broadcast(out.prototypes.data(), size * sizeof(float));
  return out;
}

Report measure(const Options& o, const comm::Communicator& world) {
  auto features = eval::parse_features(o.choices.features);
  const auto asked = features.size();
  const auto about = read_about(world, o.weights);
  const auto is_head = [](const eval::Feature& f) { return f.text == "head"; };
  if (about.prototype_count > 0 && std::ranges::none_of(features, is_head))
    features.push_back(eval::parse_feature("head"));
  auto extractor = eval::FeatureExtractor::load(world, o.weights, features, o.choices.device);
  const auto all = data::DataSet::open(o.data, world);
  const auto images = o.images > 0 ? eval::evenly(all, static_cast<std::uint64_t>(o.images)) : all;
  comm::agree(world, "choosing images", [&] {
    if (images.images() < static_cast<std::uint64_t>(std::max(2, world.size())))
      throw Error(ExitCode::input,
                  fmt::format("quality: {} images for {} ranks; wanted at least 2, and one for each rank",
                              images.images(), world.size()),
                  "give more images, or fewer ranks");
  });
  const auto reading = reading_of(o.choices);
  if (o.choices.recalibrate > 0) extractor.recalibrate(world, all, o.choices.recalibrate, reading);

  auto config = about.config.empty() ? config::Config() : config::parse_resolved(about.config, o.weights);
  if (about.config.empty()) config.crops.front().size = o.choices.crop;
  const data::Views views = {o.views, data::crop_kinds(config).front(), 0};
  const auto& crop = config.crops.front();
  Report out;
  out.crops = fmt::format("crops of {} pixels, {:g} to {:g} of the image, augmented {}", crop.size, crop.scale[0],
                          crop.scale[1], about.config.empty() ? "as by default" : "as the run's first [[crops]]");
  std::vector<eval::QualityOptions> options(features.size(), o.quality);
  if (features.size() > asked) options.back().lidar = false;
  std::optional<eval::PrototypeMeter> prototypes;
  if (about.prototype_count > 0) prototypes.emplace(about.prototypes, about.prototype_count);
  out.figures =
      eval::measure_quality(world, extractor, images, eval::evenly(images, static_cast<std::uint64_t>(o.view_images)),
                            reading, views, options, prototypes ? &*prototypes : nullptr);
  out.figures.resize(asked);
  if (prototypes) out.prototypes = prototypes->result(world);
  for (std::size_t f = 0; f < asked; ++f) out.features.push_back(features[f].text);
  out.source = extractor.source();
  out.data = eval::describe(images);
  return out;
}

/// Of files: the rows of one, and consecutive rows of the other as views of the same image.
Report measure_file(const Options& o, const comm::Communicator& world) {
  const auto table = eval::read_features(world, o.features_file);
  std::optional<eval::FeatureTable> views;
  if (!o.views_file.empty()) {
    views = eval::read_features(world, o.views_file, static_cast<std::uint64_t>(o.views));
    comm::agree(world, "comparing the tables", [&] {
      if (views->info.dimension != table.info.dimension || views->info.columns != table.info.columns)
        throw Error(ExitCode::input,
                    fmt::format("{} has {} dimensions ({}), {} has {} ({})", o.views_file, views->info.dimension,
                                views->info.layer, o.features_file, table.info.dimension, table.info.layer),
                    "compute both with the same --features");
    });
  }
  Report out{table.info.source, o.features_file, o.views_file, {}, {}, {}, {}};
  for (const auto& columns : eval::columns_of(table.info)) {
    if (views)
      eval::require_different(world, fmt::format("{} ({})", o.views_file, columns.feature), {&*views}, columns);
    eval::QualityMeter meter(columns.width, table.info.images, o.quality);
    comm::agree(world, "quality", [&] {
      meter.add(eval::only(table, columns).values, table.bad, table.first);
      if (!views) return;
      std::vector<std::uint8_t> bad;  // of an image: any of its views
      for (auto at = views->bad.begin(); at != views->bad.end(); at += o.views)
        bad.push_back(*std::max_element(at, at + o.views));
      meter.add_views(eval::only(*views, columns).values, bad, o.views);
    });
    out.features.push_back(columns.feature);
    out.figures.push_back(meter.result(world));
  }
  return out;
}

void print_json(const Report& r) {
  const auto& o = r.options;
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (std::size_t f = 0; f < r.figures.size(); ++f) {
    const auto& q = r.figures[f];
    nlohmann::ordered_json row = {
        {"feature", r.features[f]},
        {"dimension", q.dimension},
        {"images", q.images},
        {"rankme", q.rankme},
        {"rankme_variant", "singular values of the uncentred features, no epsilon"},
        {"rankme_centred", q.rankme_centred},
        {"alpha", q.alpha},
        {"alpha_variant",
         fmt::format("eigenvalues {} to {} of the covariance, weights 1/rank", q.alpha_first, q.alpha_last)},
        {"alpha_first", q.alpha_first},
        {"alpha_last", q.alpha_last}};
    if (q.views > 0) {
      row["lidar"] = q.lidar;
      row["lidar_variant"] =
          fmt::format("{} images x {} views, delta {:g}, no epsilon", q.view_images, q.views, o.lidar_delta);
      row["alignment"] = q.alignment;
      row["alignment_variant"] = "alpha = 2, all pairs of views of an image, unit rows";
      row["view_images"] = q.view_images;
      row["views"] = q.views;
    }
    row["uniformity"] = q.uniformity;
    row["uniformity_variant"] = fmt::format("t = 2, all pairs of {} images, unit rows", q.uniformity_images);
    row["deviation"] = q.deviation;
    row["deviation_expected"] = q.deviation_expected;
    rows.push_back(row);
  }
  nlohmann::ordered_json out = {{"task", "quality"}, {"source", r.source}, {"data", r.data}, {"crops", r.crops}};
  out.update(rows.front());
  if (r.prototypes)
    out["prototypes"] = {{"count", r.prototypes->prototypes},
                         {"images", r.prototypes->images},
                         {"entropy", r.prototypes->entropy},
                         {"largest_entropy", std::log(static_cast<double>(r.prototypes->prototypes))},
                         {"empty", r.prototypes->empty},
                         {"largest_share", r.prototypes->largest_share}};
  if (rows.size() > 1) out["rows"] = rows;
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const Report& r) {
  const auto line = [](const char* name, double value, const std::string& variant) {
    fmt::print("  {:<17}{:>10.4g}  {}\n", name, value, variant);
  };
  for (std::size_t f = 0; f < r.figures.size(); ++f) {
    const auto& q = r.figures[f];
    fmt::print("{} of {}, {} dimensions, {} images of {}\n", r.features[f], r.source, q.dimension, q.images, r.data);
    line("RankMe", q.rankme, "singular values of the features as they are (uncentred), no epsilon");
    line("RankMe, centred", q.rankme_centred, "the same without the features' mean");
    line("alpha-ReQ", q.alpha,
         fmt::format("eigenvalues {} to {} of the covariance, weights 1/rank", q.alpha_first, q.alpha_last));
    if (q.views > 0) {
      line("LiDAR", q.lidar,
           fmt::format("{} images x {} views, delta {:g}, no epsilon; {}", q.view_images, q.views,
                       r.options.lidar_delta, r.crops));
      line("alignment", q.alignment, "alpha = 2: mean squared distance of two views of an image, unit rows");
    }
    line("uniformity", q.uniformity, fmt::format("t = 2, pairs of {} images, unit rows", q.uniformity_images));
    line("deviation", q.deviation,
         fmt::format("of unit rows, mean over dimensions; evenly spread: {:.4g}", q.deviation_expected));
  }
  if (!r.prototypes) return;
  const auto& p = *r.prototypes;
  fmt::print("{} prototypes, {} images\n", p.prototypes, p.images);
  line("entropy", p.entropy,
       fmt::format("nats, of how many images each is nearest to; at most {:.4g}",
                   std::log(static_cast<double>(p.prototypes))));
  line("empty", static_cast<double>(p.empty), "prototypes that are no image's nearest");
  line("largest share", 100 * p.largest_share, "per cent of the images");
}

int run(const Options& given, const comm::Communicator& world) {
  auto options = given;
  comm::agree(world, "options", [&] { check(options); });
  options.quality.alpha_first = options.alpha_range[0];
  options.quality.alpha_last = options.alpha_range[1];
  auto report = options.features_file.empty() ? measure(options, world) : measure_file(options, world);
  report.options = options.quality;
  log::finish_progress();
  if (world.is_root()) options.json ? print_json(report) : print_table(report);
  return 0;
}

}  // namespace

Run add_eval_quality(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command
      .add_option("weights", options->weights, "Weights file, checkpoint folder, or run folder (its newest checkpoint)")
      ->default_str("");
  command.add_option("--data", options->data, "Shards: folder, glob or list; labels are not read");
  command.add_option("--features-file", options->features_file, "Instead of both: a file of `seer features`");
  command.add_option("--views-file", options->views_file,
                     "With --features-file: another one, in which --views consecutive rows are views of one image");
  command.add_option("--images", options->images, "At most so many images, evenly over the shards; 0: all")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--views", options->views, "Random crops of an image, for LiDAR and alignment; 0: none")
      ->check(CLI::Range(0, 1000));
  command.add_option("--view-images", options->view_images, "At most so many images with crops")
      ->check(CLI::Range(2, 10000000));
  command.add_option("--alpha-range", options->alpha_range, "First and last eigenvalue of alpha's fit")
      ->expected(2)
      ->check(CLI::PositiveNumber);
  command.add_option("--delta", options->quality.lidar_delta, "LiDAR: added to the variance within images")
      ->check(CLI::Range(1e-12, 1e6));
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  add_eval_choices(command, options->choices);
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
