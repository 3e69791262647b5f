// SPDX-License-Identifier: Apache-2.0
#include "knn_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "seer/eval/metrics.hpp"

namespace seer::app {
namespace {

constexpr std::size_t kErrorsShown = 20;

const KnnRow& best_row(const KnnResult& result) {
  return *std::ranges::max_element(result.rows, {}, &KnnRow::merit);
}

/// How the best line of several was chosen.
std::string selection(const KnnResult& result) {
  if (result.rows.front().lines.size() * result.rows.size() == 1) return "none";
  return result.select == "train" ? "best on the training set, leaving one out" : "best on the test set";
}

std::string class_name(const KnnRow& row, std::int32_t c) {
  const auto i = static_cast<std::size_t>(c);
  return i < row.report.class_names.size() ? row.report.class_names[i] : fmt::format("{}", c);
}

constexpr const char* kLeftOut[] = {"nothing", "first", "same"};  // eval::LeaveOut

nlohmann::json to_json(const KnnRow& row, const KnnLine& line, const KnnResult& result) {
  const auto& report = row.report;
  nlohmann::json out = {{"feature", row.feature},
                        {"representation", row.representation},
                        {"dimension", row.dimension},
                        {"preparation", eval::preparation(row.recipe)},
                        {"resize", row.recipe.resize},
                        {"crop", row.recipe.crop},
                        {"k", line.k},
                        {"temperature", line.temperature},
                        {"cosine", result.options.cosine},
                        {"top1", eval::percent(line.top1.mean)},
                        {"top5", eval::percent(line.top5.mean)},
                        {"mean_per_class", eval::percent(line.mean_per_class.mean)},
                        {"train_images", report.train_rows},
                        {"test_images", report.test_rows},
                        {"classes", report.classes},
                        {"chance", 100.0 / static_cast<double>(report.classes)},
                        {"largest_class", eval::percent(report.largest_class)}};
  if (result.draws > 1) {
    out["top1_deviation"] = eval::percent(line.top1.deviation);
    out["top5_deviation"] = eval::percent(line.top5.deviation);
    out["mean_per_class_deviation"] = eval::percent(line.mean_per_class.deviation);
  }
  return out;
}

std::string text_of(const eval::Spread& accuracy, std::int64_t draws) {
  return draws > 1 ? fmt::format("{:.2f} ± {:.2f}", 100 * accuracy.mean, 100 * accuracy.deviation)
                   : fmt::format("{:.2f}", 100 * accuracy.mean);
}

/// What the figures depend on, beside the images.
void print_protocol(const KnnResult& result, const KnnRow& row) {
  fmt::print("protocol {}: features {}, {}, votes weigh exp(similarity / T); images: {}\n", result.protocol,
             row.feature, result.options.cosine ? "rows of length one" : "rows as they are",
             eval::preparation(row.recipe));
  if (result.options.leave_out == eval::LeaveOut::first) fmt::print("each image's nearest neighbour does not vote\n");
  if (result.options.leave_out == eval::LeaveOut::same) fmt::print("an image does not vote for itself\n");
  if (result.draws > 0)
    fmt::print("{} of the training images, seeds {} to {}\n",
               result.few.per_class > 0 ? fmt::format("{} of each class", result.few.per_class)
                                        : fmt::format("{:g} %", 100 * result.few.fraction),
               result.few.seed, result.few.seed + static_cast<std::uint64_t>(result.draws) - 1);
}

void print_classes(const KnnRow& row) {
  std::size_t width = 5;
  for (const auto& name : row.report.class_names) width = std::max(width, name.size());
  fmt::print("\n{:{}} | {:>7} | {:>7}\n", "class", width, "n test", "top-1 %");
  const auto classes = row.confusion.per_class(row.report.classes);
  for (std::size_t c = 0; c < classes.size(); ++c) {
    if (classes[c].images > 0)
      fmt::print("{:{}} | {:>7} | {:>7.2f}\n", class_name(row, static_cast<std::int32_t>(c)), width, classes[c].images,
                 100 * classes[c].accuracy());
  }
}

void print_errors(const KnnRow& row) {
  fmt::print("\nmost frequent errors: images, class, taken for\n");
  for (const auto& cell : row.confusion.largest_errors(kErrorsShown))
    fmt::print("{:>7}  {} -> {}\n", cell.images, class_name(row, cell.truth), class_name(row, cell.predicted));
}

}  // namespace

void print_json(const KnnResult& result, const KnnExtras& extras) {
  nlohmann::json out = {{"task", "knn"},
                        {"protocol", result.protocol},
                        {"selection", selection(result)},
                        {"train", result.train.name},
                        {"test", result.test.name},
                        {"left_out", kLeftOut[static_cast<std::size_t>(result.options.leave_out)]},
                        {"rows", nlohmann::json::array()}};
  if (result.draws > 0)
    out["few"] = {{"draws", result.draws},
                  {"per_class", result.few.per_class},
                  {"fraction", result.few.fraction},
                  {"subset_seed", result.few.seed}};
  for (const auto& row : result.rows)
    for (const auto& line : row.lines) out["rows"].push_back(to_json(row, line, result));
  const auto& best = best_row(result);
  out["best"] = to_json(best, best.lines[best.best], result);
  if (extras.per_class) {
    const auto classes = best.confusion.per_class(best.report.classes);
    for (std::size_t c = 0; c < classes.size(); ++c) {
      out["per_class"].push_back({{"class", class_name(best, static_cast<std::int32_t>(c))},
                                  {"images", classes[c].images},
                                  {"top1", eval::percent(classes[c].accuracy())}});
    }
  }
  if (extras.confusion) {
    auto& confusion = out["confusion"] = {{"classes", best.report.class_names}, {"cells", nlohmann::json::array()}};
    for (const auto& cell : best.confusion.cells())
      confusion["cells"].push_back({cell.truth, cell.predicted, cell.images});
  }
  fmt::print("{}\n", out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_table(const KnnResult& result, const KnnExtras& extras) {
  std::size_t width = 14;
  for (const auto& row : result.rows) width = std::max(width, row.representation.size());
  const int figure = result.draws > 1 ? 13 : 7;
  fmt::print("{:{}} | {:>6} | {:>5} | {:>6} | {:>{}} | {:>{}} | {:>{}} | {:>8} | {:>7}\n", "representation", width,
             "dims", "k", "T", "top-1 %", figure, "top-5 %", figure, "class %", figure, "n train", "n test");
  fmt::print("{}\n", std::string(width + 49 + 3 * static_cast<std::size_t>(figure), '-'));
  for (const auto& row : result.rows) {
    for (const auto& line : row.lines) {
      fmt::print("{:{}} | {:>6} | {:>5} | {:>6} | {:>{}} | {:>{}} | {:>{}} | {:>8} | {:>7}\n", row.representation,
                 width, row.dimension, line.k, line.temperature, text_of(line.top1, result.draws), figure,
                 text_of(line.top5, result.draws), figure, text_of(line.mean_per_class, result.draws), figure,
                 row.report.train_rows, row.report.test_rows);
    }
  }
  const auto& best = best_row(result);
  if (selection(result) != "none") {
    const auto& line = best.lines[best.best];
    fmt::print("{}: {}, k {}, T {}: top-1 {} %\n", selection(result), best.representation, line.k, line.temperature,
               text_of(line.top1, result.draws));
  }
  print_protocol(result, best);
  const auto& report = result.rows.front().report;
  fmt::print("class %: mean over classes; {} classes: chance {:.2f} %, always the commonest class {:.2f} %\n",
             report.classes, 100.0 / static_cast<double>(report.classes), 100 * report.largest_class);
  fmt::print("training set: {}, {} images\ntest set: {}, {} images\n", result.train.name, result.train.images,
             result.test.name, result.test.images);
  const auto train_out = result.draws > 0 ? 0 : static_cast<std::int64_t>(result.train.images) - report.train_rows,
             test_out = static_cast<std::int64_t>(result.test.images) - report.test_rows;
  if (train_out + test_out > 0)
    fmt::print("left out: {} training and {} test images without a class, with several, or that do not decode\n",
               train_out, test_out);
  if (extras.per_class) print_classes(best);
  if (extras.confusion) print_errors(best);
}

}  // namespace seer::app
