// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/examples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/eval/classes.hpp"
#include "seer/kernels/classifier.hpp"

namespace seer::eval {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::int64_t highest_class(const FeatureTable& table) {
  std::int64_t out = -1;
  for (std::size_t i = 0; i < table.rows(); ++i)
    for (const auto c : table.classes_of(i)) out = std::max<std::int64_t>(out, c);
  return out;
}

/// This rank's examples, with the classes of both sets.
Examples examples_of(const FeatureTable& table, const FeatureColumns& columns, const std::vector<std::string>& classes,
                     bool several) {
  const auto& info = table.info;
  Examples out;
  out.name = info.name();
  out.dimension = columns.width > 0 ? columns.width : info.dimension;
  out.classes = classes;
  out.several = several;
  std::map<std::string, std::int32_t> places;
  for (std::size_t c = 0; c < classes.size(); ++c) places.emplace(classes[c], static_cast<std::int32_t>(c));
  const auto place_of = [&](std::int32_t c) {
    const auto named = info.classes.empty() ? classes.size() : info.classes.size();
    if (c < 0 || static_cast<std::size_t>(c) >= named)
      throw Error(ExitCode::file, fmt::format("{}: class {} in a set of {} classes", info.name(), c, named));
    return info.classes.empty() ? c : places.at(info.classes[static_cast<std::size_t>(c)]);
  };
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const auto of_row = table.classes_of(i);
    if (table.bad[i] != 0 || (of_row.empty() && !several)) continue;
    out.table_rows.push_back(i);
    out.labels.push_back(of_row.empty() ? -1 : place_of(of_row[0]));
    const auto begin = table.values.begin() + static_cast<std::ptrdiff_t>(i) * info.dimension + columns.begin;
    out.values.insert(out.values.end(), begin, begin + out.dimension);
    if (several) {
      std::vector<std::int8_t> truth(classes.size(), 0);
      if (table.ignored.images() > 0)
        for (const auto c : table.ignored.of(i)) truth[static_cast<std::size_t>(place_of(c))] = -1;
      for (const auto c : of_row) truth[static_cast<std::size_t>(place_of(c))] = 1;
      out.truth.insert(out.truth.end(), truth.begin(), truth.end());
    }
    const auto row = out.values.end() - out.dimension;
    if (!std::all_of(row, out.values.end(), [](double value) { return std::isfinite(value); }))
      throw Error(
          ExitCode::numerics,
          fmt::format("{} on {}: features of image {} are not finite", info.source, info.name(), table.index[i]),
          "these weights have diverged; take an earlier checkpoint");
  }
  return out;
}

/// Places of this rank's rows among those of all.
void number_rows(const comm::Communicator& comm, Examples& examples) {
  const auto rows = comm.all_gather(static_cast<std::int64_t>(examples.rows()));
  examples.first = examples.all = 0;
  for (int rank = 0; rank < comm.size(); ++rank) {
    const auto count = static_cast<std::uint64_t>(rows[static_cast<std::size_t>(rank)]);
    if (rank < comm.rank()) examples.first += count;
    examples.all += count;
  }
}

/// Over all ranks: whether all rows are equal.
bool all_equal(const comm::Communicator& comm, const Examples& examples) {
  auto low = std::vector(examples.width(), kInfinity), high = std::vector(examples.width(), -kInfinity);
  for (std::size_t i = 0; i < examples.values.size(); ++i) {
    const auto j = i % examples.width();
    low[j] = std::min(low[j], examples.values[i]);
    high[j] = std::max(high[j], examples.values[i]);
  }
  comm.all_reduce(std::span(low), comm::Op::min);
  comm.all_reduce(std::span(high), comm::Op::max);
  return low == high;
}

}  // namespace

ExamplePair make_examples(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                          const FeatureColumns& columns) {
  const auto highest = comm.all_reduce(std::max(highest_class(train), highest_class(test)), comm::Op::max);
  const auto several = comm.all_reduce(
      static_cast<std::int64_t>(train.targets.images() > 0 || test.targets.images() > 0), comm::Op::max);
  ExamplePair out;
  comm::agree(comm, "classes of the features", [&] {
    if (train.info.dimension != test.info.dimension)
      throw Error(ExitCode::input,
                  fmt::format("{} has features of {} dimensions, {} of {}", train.info.name(), train.info.dimension,
                              test.info.name(), test.info.dimension),
                  "compute both with the same weights and features");
    auto classes = common_classes(train.info.classes, train.info.name(), test.info.classes, test.info.name());
    if (classes.empty())
      for (std::int64_t c = 0; c <= highest; ++c) classes.push_back(fmt::format("{}", c));
    out.train = examples_of(train, columns, classes, several != 0);
    out.test = examples_of(test, columns, classes, several != 0);
  });
  number_rows(comm, out.train);
  number_rows(comm, out.test);
  const auto of_train = count_classes(comm, out.train), of_test = count_classes(comm, out.test);
  const bool equal = all_equal(comm, out.train);
  comm::agree(comm, "what can be learnt", [&] {
    for (const auto* set : {&out.train, &out.test})
      if (set->all == 0)
        throw Error(ExitCode::file, fmt::format("{}: no image has a label and decodes", set->name),
                    "pack it with --labels folder");
    require_learnable(out.train.name, of_train, out.test.name, of_test, out.train.classes);
    const auto varies = [&](auto images) { return images > 0 && images < static_cast<std::int64_t>(out.train.all); };
    if (std::ranges::none_of(of_train, varies))
      throw Error(ExitCode::file,
                  fmt::format("{}: each class is in all {} images or in none", out.train.name, out.train.all),
                  "a classifier needs images with and without a class");
    require_enough(comm, out.train.all);
    if (equal)
      throw Error(ExitCode::numerics,
                  fmt::format("{} on {}: the features of all {} images are equal", train.info.source, out.train.name,
                              out.train.all),
                  "this network has collapsed; nothing can be learnt from them");
  });
  return out;
}

Scale standardise(const comm::Communicator& comm, Examples& examples) {
  const auto d = examples.width();
  const double n = static_cast<double>(examples.all);
  Scale out{std::vector(d, 0.0), std::vector(d, 0.0)};
  for (std::size_t i = 0; i < examples.values.size(); ++i) out.mean[i % d] += examples.values[i] / n;
  comm.all_reduce(std::span(out.mean));
  for (std::size_t i = 0; i < examples.values.size(); ++i) {
    auto& value = examples.values[i];
    value -= out.mean[i % d];
    out.deviation[i % d] += value * value / n;
  }
  comm.all_reduce(std::span(out.deviation));
  for (std::size_t j = 0; j < d; ++j) {
    const double deviation = std::sqrt(out.deviation[j]);
    // Rounding errors of the mean are no deviation.
    out.deviation[j] = deviation > 1e-12 * std::abs(out.mean[j]) ? deviation : 1;
  }
  for (std::size_t i = 0; i < examples.values.size(); ++i) examples.values[i] /= out.deviation[i % d];
  return out;
}

void Scale::fold(LinearModel& model) const {
  for (std::size_t i = 0; i < model.weight.size() && !mean.empty(); ++i) {
    model.weight[i] /= deviation[i % mean.size()];
    model.bias[i / mean.size()] -= model.weight[i] * mean[i % mean.size()];
  }
}

void normalise_rows(Examples& examples) {
  for (auto row = examples.values.begin(); row != examples.values.end(); row += examples.dimension) {
    double squares = 0;
    for (auto value = row; value != row + examples.dimension; ++value) squares += *value * *value;
    for (auto value = row; value != row + examples.dimension; ++value) *value /= std::sqrt(squares) + 1e-5;
  }
}

data::Targets classes_of_all(const comm::Communicator& comm, const Examples& examples, std::int8_t truth) {
  const auto classes = examples.classes.size();
  std::vector<std::int32_t> mine;  // how many classes, and which, row by row
  for (std::size_t i = 0; i < examples.rows(); ++i) {
    const auto count = mine.size();
    mine.push_back(0);
    if (!examples.several && truth == 1) mine.push_back(examples.labels[i]);
    for (std::size_t c = 0; c < classes && examples.several; ++c)
      if (examples.truth[i * classes + c] == truth) mine.push_back(static_cast<std::int32_t>(c));
    mine[count] = static_cast<std::int32_t>(mine.size() - count - 1);
  }
  data::Targets out;
  const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(std::int32_t));
  for (const auto& part : comm.all_gather(bytes)) {
    std::vector<std::int32_t> values(part.size() / sizeof(std::int32_t));
    std::memcpy(values.data(), part.data(), part.size());
    for (std::size_t at = 0; at < values.size(); at += 1 + static_cast<std::size_t>(values[at]))
      out.add(std::span(values).subspan(at + 1, static_cast<std::size_t>(values[at])));
  }
  return out;
}

Examples subset(const comm::Communicator& comm, const Examples& examples, std::span<const std::uint64_t> chosen) {
  Examples out = examples;
  out.values.clear();
  out.labels.clear();
  out.truth.clear();
  out.table_rows.clear();
  const auto classes = static_cast<std::ptrdiff_t>(examples.classes.size());
  for (const auto place : chosen) {
    if (place < examples.first || place >= examples.first + examples.rows()) continue;
    const auto row = static_cast<std::ptrdiff_t>(place - examples.first);
    const auto value = examples.values.begin() + row * examples.dimension;
    out.values.insert(out.values.end(), value, value + examples.dimension);
    out.labels.push_back(examples.labels[static_cast<std::size_t>(row)]);
    if (!examples.several) continue;
    const auto truth = examples.truth.begin() + row * classes;
    out.truth.insert(out.truth.end(), truth, truth + classes);
  }
  number_rows(comm, out);
  return out;
}

void require_enough(const comm::Communicator& comm, std::uint64_t images) {
  if (images < static_cast<std::uint64_t>(comm.size()))
    throw Error(ExitCode::input, fmt::format("{} training images on {} ranks", images, comm.size()),
                "start fewer ranks, or take more images");
}

std::vector<std::int64_t> count_classes(const comm::Communicator& comm, const Examples& examples) {
  const auto classes = examples.classes.size();
  std::vector<std::int64_t> out(classes, 0);
  for (std::size_t i = 0; i < examples.truth.size(); ++i) out[i % classes] += examples.truth[i] == 1 ? 1 : 0;
  for (const auto label : examples.labels)
    if (!examples.several) ++out[static_cast<std::size_t>(label)];
  comm.all_reduce(std::span(out));
  return out;
}

std::vector<float> LinearModel::scores(const Examples& examples, std::size_t first, std::size_t count) const {
  std::vector<double> wide(count * static_cast<std::size_t>(classes));
  kernels::linear_scores({static_cast<std::int64_t>(count), dimension, classes},
                         examples.values.data() + first * examples.width(), weight.data(), bias.data(), wide.data());
  return {wide.begin(), wide.end()};
}

Figures judge(const comm::Communicator& comm, const LinearModel& model, const Examples& examples, bool with_precision) {
  constexpr std::size_t kRows = 4096;
  const auto classes = static_cast<std::size_t>(model.classes);
  const bool precision = with_precision || examples.several;
  AccuracyCounter counter(model.classes);
  std::vector<float> all;
  for (std::size_t first = 0; first < examples.rows(); first += kRows) {
    const auto count = std::min(kRows, examples.rows() - first);
    const auto scores = model.scores(examples, first, count);
    if (!examples.several) counter.add(scores, std::span(examples.labels).subspan(first, count));
    if (precision) all.insert(all.end(), scores.begin(), scores.end());
  }
  Figures out;
  if (!examples.several) out.accuracy = counter.result(comm);
  if (!precision) return out;
  auto truth = examples.truth;
  if (!examples.several) {
    truth.assign(examples.rows() * classes, 0);
    for (std::size_t i = 0; i < examples.rows(); ++i)
      truth[i * classes + static_cast<std::size_t>(examples.labels[i])] = 1;
  }
  out.precision = mean_average_precision(comm, all, truth, model.classes);
  return out;
}

std::vector<ProbeRow> over_draws(
    const Sizes& sizes, bool several,
    const std::function<std::vector<DrawResult>(const Size& size, std::uint64_t seed)>& probe) {
  std::vector<Size> all;
  for (const auto per_class : sizes.per_class) all.push_back({1, per_class});
  for (const auto fraction : sizes.fractions) all.push_back({fraction, 0});
  if (all.empty()) all.push_back({});
  std::vector<ProbeRow> out;
  for (const auto& size : all) {
    std::vector<std::vector<DrawResult>> draws;  // [draws, ways]
    for (std::int64_t i = 0; i < sizes.draws; ++i)
      draws.push_back(probe(size, sizes.seed + static_cast<std::uint64_t>(i)));
    const auto spread = [&](std::size_t way, auto figure) {
      std::vector<double> values;
      for (const auto& draw : draws) values.push_back(figure(draw[way]));
      return spread_of(values, sizes.population);
    };
    const auto mean = [&](std::size_t way, auto figure) { return spread(way, figure).mean; };
    const auto choice = [](const DrawResult& draw) { return draw.choice; };
    std::size_t best = 0;
    for (std::size_t way = 1; way < draws[0].size(); ++way)
      if (mean(way, choice) > mean(best, choice)) best = way;
    const auto top1 = [](const DrawResult& draw) { return draw.figures.accuracy.top1; };
    const auto all_points = [](const DrawResult& draw) { return draw.figures.precision.all_points; };
    std::vector<double> c;
    ProbeRow row;
    row.fraction = size.fraction;
    row.per_class = size.per_class;
    row.draws = sizes.draws;
    for (const auto& draw : draws) {
      c.insert(c.end(), draw[best].c.begin(), draw[best].c.end());
      for (const auto& result : draw) row.unconverged += result.unconverged;
      if (const auto& rule = draw[best].selection; row.selection.find(rule) == std::string::npos)
        row.selection += (row.selection.empty() ? "" : "; or ") + rule;
    }
    std::ranges::sort(c);
    row.train_images = draws[0][best].train_images;
    row.c = c[(c.size() - 1) / 2];
    row.choice = mean(best, choice);
    row.top1 = mean(best, top1);
    row.top1_deviation = spread(best, top1).deviation;
    row.all_points = mean(best, all_points);
    row.all_points_deviation = spread(best, all_points).deviation;
    if (!several) {
      row.top5 = mean(best, [](const auto& draw) { return draw.figures.accuracy.top5; });
      row.mean_per_class = mean(best, [](const auto& draw) { return draw.figures.accuracy.mean_per_class; });
    }
    row.eleven_points = mean(best, [](const auto& draw) { return draw.figures.precision.eleven_points; });
    row.model = std::move(draws.back()[best].model);
    out.push_back(std::move(row));
  }
  return out;
}

}  // namespace seer::eval
