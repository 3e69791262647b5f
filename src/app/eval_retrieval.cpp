// SPDX-License-Identifier: Apache-2.0
// seer eval retrieval: mean average precision of ranking a database for each query.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/classes.hpp"
#include "seer/eval/metrics.hpp"
#include "seer/eval/retrieval_task.hpp"
#include "seer/eval/whitening.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string weights, database, queries, query_file, copies_of, whiten;
  std::int64_t whiten_dims = 0;
  std::vector<double> scales = {1};
  bool json = false;
  EvalChoices choices;
};

struct Row {
  std::string feature;
  std::int64_t dimension = 0;
  std::vector<eval::RetrievalScore> scores;
};

void check(const Options& o) {
  if (!o.query_file.empty() && !o.copies_of.empty())
    throw Error(ExitCode::input, "--query-file and --copies-of both say which images answer a query",
                "give one of them");
  if (o.whiten_dims > 0 && o.whiten.empty())
    throw Error(ExitCode::input, "--whiten-dims without --whiten", "say which images to learn the whitening from");
  const auto features = eval::parse_features(o.choices.features);
  if (o.scales.size() > 1 && std::ranges::any_of(features, &eval::Feature::is_map))
    throw Error(ExitCode::input, "a map has another size at every scale", "pool it, or leave out --scales");
}

/// Cuts the box out of an image. Error(file) if nothing of it is inside.
void cut_out(const std::array<double, 4>& box, data::Image& image, const std::string& name) {
  const auto inside = [](double at, std::int64_t side) { return std::clamp<std::int64_t>(std::lround(at), 0, side); };
  const auto left = inside(box[0], image.width), right = inside(box[2], image.width);
  const auto top = inside(box[1], image.height), bottom = inside(box[3], image.height);
  if (left >= right || top >= bottom)
    throw Error(ExitCode::file, fmt::format("query {}: nothing of its box [{}] lies inside its {} x {} pixels", name,
                                            fmt::join(box, ", "), image.width, image.height));
  data::Image part{right - left, bottom - top, {}};
  for (auto y = top; y < bottom; ++y) {
    const auto* row = image.rgb.data() + 3 * (y * image.width + left);
    part.rgb.insert(part.rgb.end(), row, row + 3 * part.width);
  }
  image = std::move(part);
}

class Evaluation {
 public:
  Evaluation(const Options& options, const comm::Communicator& world)
      : options_(options),
        world_(world),
        same_(options.queries.empty()),
        database_(data::DataSet::open(options.database, world)),
        queries_(same_ ? database_ : data::DataSet::open(options.queries, world)),
        reading_(reading_of(options.choices)) {
    if (!options.query_file.empty()) {
      named_ = eval::read_queries(world, options.query_file);
      std::vector<std::string> names;
      for (const auto& query : named_) names.push_back(query.image);
      places_ = eval::find_images(world, queries_, names, options.query_file + " in the images of the queries");
      task_ = eval::revisited_task(world, named_, same_ ? places_ : std::vector<std::uint64_t>(), database_,
                                   options.query_file);
      return;
    }
    const auto keys = [&](const data::DataSet& data, const std::string& path) {
      return options.copies_of.empty() ? eval::keys_by_label(world, data, path)
                                       : eval::keys_by_name(world, data, options.copies_of, path);
    };
    const auto of_database = keys(database_, options.database);
    if (options.copies_of.empty())
      comm::agree(world, "labels", [&] {
        eval::common_classes(database_.classes(), options.database, queries_.classes(),
                             same_ ? options.database : options.queries);
      });
    refuse_one_original(of_database);
    const auto of_queries = same_ ? of_database : keys(queries_, options.queries);
    without_key_ = {std::ranges::count(of_database.keys, 0U), std::ranges::count(of_queries.keys, 0U)};
    const bool copies = !options.copies_of.empty() || of_database.groups.size() > 1;  // names tell kinds of copies
    task_ = eval::copies_task(copies ? "copies" : "labels", of_queries, of_database, same_);
    if (!same_) warn_of_common();
  }

  std::vector<Row> rows() {
    eval::want_answers(task_);  // before features are computed
    auto extractor = eval::FeatureExtractor::load(
        world_, options_.weights, eval::parse_features(options_.choices.features), options_.choices.device);
    source_ = extractor.source();
    images_ = eval::preparation(extractor.info(database_, reading_).recipe);
    if (options_.choices.recalibrate > 0)
      extractor.recalibrate(world_, database_, options_.choices.recalibrate, reading_);
    const auto database = table(extractor, database_);
    const auto queries = !named_.empty() ? boxes(extractor) : same_ ? database : table(extractor, queries_);
    const auto bad = [&](const eval::FeatureTable& rows) {
      return world_.all_reduce(static_cast<std::int64_t>(rows.rows()) - std::ranges::count(rows.bad, 0), comm::Op::sum);
    };
    undecodable_ = {bad(database), bad(queries)};
    eval::FeatureTable others;
    if (!options_.whiten.empty()) others = table(extractor, data::DataSet::open(options_.whiten, world_));
    std::vector<Row> out;
    for (const auto& columns : eval::columns_of(database.info)) {
      eval::require_different(world_, fmt::format("{} ({})", source_, columns.feature), {&database}, columns);
      auto of_database = eval::only(database, columns), of_queries = eval::only(queries, columns);
      if (!options_.whiten.empty()) {
        const auto whitening = eval::learn_whitening(world_, eval::only(others, columns), options_.whiten_dims);
        eval::whiten(whitening, of_database);
        eval::whiten(whitening, of_queries);
      }
      out.push_back(
          {columns.feature, of_database.info.dimension, eval::score_retrieval(world_, of_queries, of_database, task_)});
    }
    return out;
  }

  const eval::RetrievalTask& task() const { return task_; }
  /// Images of the database, and queries, that have no single class, or whose name tells no original.
  std::pair<std::int64_t, std::int64_t> without_key() const { return without_key_; }
  const std::string& source() const { return source_; }
  const std::string& images() const { return images_; }
  /// Images of the database, and queries, that do not decode and are left out.
  std::pair<std::int64_t, std::int64_t> undecodable() const { return undecodable_; }

 private:
  /// All rankings would be right.
  void refuse_one_original(const eval::ImageKeys& database) const {
    const auto& keys = database.keys;
    if (keys.empty() || keys.front() == 0 || std::ranges::count(keys, keys.front()) != std::ssize(keys)) return;
    throw Error(ExitCode::file,
                fmt::format("{}: all {} images are {}, so every ranking is right", options_.database, keys.size(),
                            options_.copies_of.empty() ? "of one class" : "copies of one original"),
                "add images of others to --database")
        .as_agreed();
  }
  void warn_of_common() const {
    const auto images = eval::my_checksums(queries_, world_);
    if (const auto common = eval::count_common(world_, eval::my_checksums(database_, world_), images); common > 0)
      log::warn(
          fmt::format("{} of the {} queries of {} are in the database {} as well: each finds itself first, so the "
                      "figures do not hold for other images",
                      common, queries_.images(), options_.queries, options_.database));
  }
  data::EvalOptions at_scale(double scale) const {
    auto out = reading_;
    for (auto* side : {&out.resize, &out.crop, &out.whole})
      *side = static_cast<std::int64_t>(std::lround(scale * static_cast<double>(*side)));
    return out;
  }

  /// Rows of length one: sums over the scales of such rows.
  eval::FeatureTable table(eval::FeatureExtractor& extractor, const data::DataSet& data) const {
    eval::FeatureTable out;
    for (const double scale : options_.scales) add(out, extractor.table(world_, data, at_scale(scale)));
    return unit(std::move(out));
  }

  /// The queries of the file, each cut to its box.
  eval::FeatureTable boxes(eval::FeatureExtractor& extractor) const {
    eval::FeatureTable out;
    for (const double scale : options_.scales) {
      eval::FeatureTable rows;
      const auto reading = at_scale(scale);
      rows.info = extractor.info(queries_, reading);
      rows.info.images = named_.size();
      rows.first = eval::slice_begin(named_.size(), world_.rank(), world_.size());
      comm::agree(world_, "features of the queries", [&] {
        const auto end = eval::slice_begin(named_.size(), world_.rank() + 1, world_.size());
        for (auto q = rows.first; q < end; ++q) {
          auto own = reading;
          if (named_[q].box)
            own.change = [&query = named_[q]](std::uint64_t, data::Image& image) {
              cut_out(*query.box, image, query.image);
            };
          auto values = extractor.image(queries_, places_[q], own);
          rows.bad.push_back(values.empty() ? 1 : 0);
          values.resize(static_cast<std::size_t>(rows.info.dimension));
          rows.values.insert(rows.values.end(), values.begin(), values.end());
          rows.labels.push_back(-1);
          rows.index.push_back(places_[q]);
        }
      });
      add(out, std::move(rows));
    }
    return unit(std::move(out));
  }

  eval::FeatureTable unit(eval::FeatureTable rows) const {
    comm::agree(world_, "features", [&] { eval::make_unit(rows); });
    return rows;
  }
  void add(eval::FeatureTable& sum, eval::FeatureTable rows) const {
    rows = unit(std::move(rows));
    if (sum.info.images == 0) return std::swap(sum, rows);
    for (std::size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += rows.values[i];
  }

  const Options& options_;
  const comm::Communicator& world_;
  bool same_;  ///< the queries are images of the database
  data::DataSet database_, queries_;
  data::EvalOptions reading_;
  std::vector<eval::NamedQuery> named_;
  std::vector<std::uint64_t> places_;  ///< of named_ in queries_
  eval::RetrievalTask task_;
  std::string source_, images_;
  std::pair<std::int64_t, std::int64_t> undecodable_, without_key_;
};

std::string judged_as(const Options& o, const eval::RetrievalTask& task) {
  return task.protocol == "revisited"
             ? "revisited Oxford/Paris (Radenovic et al. 2018): junk left out; easy: hard ones too; hard: easy ones too"
         : !o.copies_of.empty()      ? "copies by name: all images of the same original are right"
         : task.protocol == "copies" ? "copies by label: all images of the same original are right"
                                     : "labels: all images of the same class are right";
}

std::string preparation(const Options& o, const Evaluation& evaluation) {
  auto out = fmt::format("images: {}; rows of length one, scales {}", evaluation.images(), fmt::join(o.scales, ", "));
  if (!o.whiten.empty())
    out += fmt::format(", PCA whitening{} learnt on {}",
                       o.whiten_dims > 0 ? fmt::format(" to {} dimensions", o.whiten_dims) : "", o.whiten);
  return out + "; average precision by the trapezoidal rule";
}

void print_json(const Options& o, const Evaluation& evaluation, const std::vector<Row>& rows) {
  nlohmann::json out = {{"task", "retrieval"},
                        {"protocol", evaluation.task().protocol},
                        {"preparation", preparation(o, evaluation)},
                        {"source", evaluation.source()},
                        {"database", o.database},
                        {"queries", o.queries.empty() ? o.database : o.queries},
                        {"undecodable_in_database", evaluation.undecodable().first},
                        {"without_label_in_database", evaluation.without_key().first},
                        {"queries_without_label", evaluation.without_key().second},
                        {"undecodable_queries", evaluation.undecodable().second},
                        {"rows", nlohmann::json::array()}};
  for (const auto& row : rows) {
    for (const auto& score : row.scores) {
      nlohmann::json line = {{"feature", row.feature},
                             {"dimension", row.dimension},
                             {"judgement", score.judgement},
                             {"queries", score.queries},
                             {"map", eval::percent(score.map)}};
      for (std::size_t k = 0; k < score.precision.size(); ++k)
        line[fmt::format("precision_at_{}", eval::kRetrievalDepths[k])] = eval::percent(score.precision[k]);
      out["rows"].push_back(line);
    }
  }
  // The main judgement: of revisited sets medium, else all.
  const std::string main = evaluation.task().protocol == "revisited" ? "medium" : "all";
  for (const auto& line : out["rows"])
    if (line["judgement"] == main && (!out.contains("best") || line["map"] > out["best"]["map"])) out["best"] = line;
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const Options& o, const Evaluation& evaluation, const std::vector<Row>& rows) {
  std::size_t width = 7;
  for (const auto& row : rows) width = std::max(width, row.feature.size());
  fmt::print("{}\n", evaluation.source());
  fmt::print("{:{}} | {:>6} | {:9} | {:>7} | {:>6} | {:>6} | {:>6} | {:>7}\n", "feature", width, "dims", "judged",
             "mAP %", "P@1 %", "P@5 %", "P@10 %", "queries");
  fmt::print("{}\n", std::string(width + 68, '-'));
  for (const auto& row : rows)
    for (const auto& score : row.scores)
      fmt::print("{:{}} | {:>6} | {:9} | {:>7.2f} | {:>6.2f} | {:>6.2f} | {:>6.2f} | {:>7}\n", row.feature, width,
                 row.dimension, score.judgement, 100 * score.map, 100 * score.precision[0], 100 * score.precision[1],
                 100 * score.precision[2], score.queries);
  fmt::print("protocol: {}\nfeatures: {}\ndatabase: {}\nqueries: {}\n", judged_as(o, evaluation.task()),
             preparation(o, evaluation), o.database,
             o.queries.empty() ? "images of the database, each left out of its own ranking" : o.queries);
  const auto [of_database, of_queries] = evaluation.undecodable();
  if (of_database + of_queries > 0)
    fmt::print("left out: {} images of the database and {} queries, which do not decode\n", of_database, of_queries);
  if (const auto [in_database, in_queries] = evaluation.without_key(); in_database + in_queries > 0)
    fmt::print("{}: {} images of the database, wrong for every query, and {} queries, left out\n",
               o.copies_of.empty() ? "without a class, or with several" : "names that tell no original", in_database,
               in_queries);
}

int run(const Options& options, const comm::Communicator& world) {
  comm::agree(world, "options", [&] { check(options); });
  Evaluation evaluation(options, world);
  const auto rows = evaluation.rows();
  log::finish_progress();
  if (world.is_root()) options.json ? print_json(options, evaluation, rows) : print_table(options, evaluation, rows);
  return 0;
}

}  // namespace

Run add_eval_retrieval(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command
      .add_option("weights", options->weights, "Weights file, checkpoint folder, or run folder (its newest checkpoint)")
      ->required();
  command.add_option("--database", options->database, "Shards that are searched: folder, glob or list")->required();
  command.add_option("--queries", options->queries,
                     "Shards of the queries (default: every image of the database searches for the others)");
  command.add_option("--query-file", options->query_file,
                     "Queries with their easy, hard and junk images by name: JSON, see docs/formats.md");
  command.add_option("--copies-of", options->copies_of,
                     "Regular expression: images whose names give equal text in its first group are copies of one\n"
                     "original (default: images of one label are)");
  command.add_option("--whiten", options->whiten, "Shards from which PCA whitening is learnt; not those searched");
  command.add_option("--whiten-dims", options->whiten_dims, "Dimensions after whitening (default: all)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->type_name("N")
      ->default_str("");
  command
      .add_option("--scales", options->scales,
                  "Sizes of the images relative to --resize, --crop or --whole; features are summed")
      ->delimiter(',')
      ->check(CLI::Range(0.1, 8.0));
  command.add_flag("--json", options->json, "One JSON object instead of the table");
  add_eval_choices(command, options->choices);
  return [options](const comm::Communicator& world) { return run(*options, world); };
}

}  // namespace seer::app
