// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/knn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <span>

#include "neighbours.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/classes.hpp"

namespace seer::eval {
namespace {

/// Adds the votes of the k nearest neighbours of one test row. Similarities are multiplied with `unit`.
void vote(const std::vector<Neighbour>& nearest, double unit, double temperature, std::size_t k, double* votes) {
  if (nearest.empty()) return;
  // exp overflows beyond 709. If dot products are so large, take weights relative to the nearest neighbour.
  const double top = unit * static_cast<double>(nearest.front().similarity) / temperature;
  const double shift = std::abs(top) > 600 ? top : 0.0;
  // A class whose weights all vanish still gets votes: fewer than any other, and more the nearer its nearest row is.
  constexpr double kVanishing = 1e-290, kLeast = 1e-300;
  const std::size_t voters = std::min(k, nearest.size());
  for (std::size_t i = 0; i < voters; ++i) {
    const double weight = std::exp(unit * static_cast<double>(nearest[i].similarity) / temperature - shift);
    double& votes_of_class = votes[nearest[i].label];
    if (weight > kVanishing)
      votes_of_class += weight;
    else if (votes_of_class == 0)
      votes_of_class = kLeast * static_cast<double>(voters - i);
  }
}

/// Over all ranks.
std::int64_t count_labels(const comm::Communicator& comm, const FeatureTable& table) {
  const auto here = std::ranges::count_if(table.labels, [](auto label) { return label >= 0; });
  return comm.all_reduce(static_cast<std::int64_t>(here), comm::Op::sum);
}

/// On this rank; -1: no row has a label.
std::int64_t highest_label(const FeatureTable& table) {
  return table.labels.empty() ? -1 : *std::ranges::max_element(table.labels);
}

/// A set's labels as indices into the classes of both; -1: no label, or the image does not decode.
std::vector<std::int32_t> labels_among(const std::vector<std::string>& classes, const FeatureTable& table) {
  std::vector<std::int32_t> out = table.labels, places;
  for (const auto& name : table.info.classes)
    places.push_back(static_cast<std::int32_t>(std::ranges::find(classes, name) - classes.begin()));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (table.bad[i] != 0) out[i] = -1;
    if (out[i] >= 0 && !places.empty()) out[i] = places.at(static_cast<std::size_t>(out[i]));
  }
  return out;
}

/// True if the label is among the five classes with most votes. A class without votes never is.
bool among_five(std::span<const double> votes, std::int32_t label) {
  const auto l = static_cast<std::size_t>(label);
  if (!(votes[l] > 0)) return false;
  int ahead = 0;
  for (std::size_t c = 0; c < votes.size(); ++c)
    if (votes[c] > votes[l] || (votes[c] == votes[l] && c < l)) ++ahead;
  return ahead < 5;
}

/// Calls visit(row, number of the pair, its votes) for each test row and each pair of k and temperature.
void for_each_vote(const Neighbours& neighbours, const KnnOptions& options, std::int64_t classes, const auto& visit) {
  std::vector<double> votes(static_cast<std::size_t>(classes));
  for (std::size_t row = 0; row < neighbours.of.size(); ++row) {
    std::size_t pair = 0;
    for (const auto k : options.k) {
      for (const double temperature : options.temperature) {
        std::ranges::fill(votes, 0.0);
        vote(neighbours.of[row], neighbours.unit, temperature, static_cast<std::size_t>(k), votes.data());
        visit(row, pair++, std::span<const double>(votes));
      }
    }
  }
}
std::int32_t winner(std::span<const double> votes) {
  return static_cast<std::int32_t>(std::ranges::max_element(votes) - votes.begin());
}

/// Number of images per class, over all ranks.
std::vector<std::int64_t> per_class(const comm::Communicator& comm, const std::vector<std::int32_t>& labels,
                                    std::int64_t classes) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(classes), 0);
  for (const auto label : labels)
    if (label >= 0) ++out[static_cast<std::size_t>(label)];
  comm.all_reduce(std::span(out));
  return out;
}

}  // namespace

const std::vector<KnnProtocol>& knn_protocols() {
  // DINO eval_knn.py; DINOv2 and DINOv3 eval/knn.py; VISSL knn_utils.py, whose rows keep their length, and its settings
  // for SEER's 10B model; lightly's benchmarks, which had temperature 0.1 before 2025.
  static const std::vector<KnnProtocol> all = {
      {"dino", {10, 20, 100, 200}, 0.07, true},
      {"dinov2", {10, 20, 100, 200}, 0.07, true},
      {"dinov3", {10, 20, 100, 200}, 0.07, true},
      {"vissl", {200}, 0.1, false},
      {"vissl10b", {20}, 0.07, true},
      {"lightly", {200}, 0.07, true},
  };
  return all;
}

std::vector<KnnVotes> knn_votes(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                                std::int64_t classes, const KnnOptions& options) {
  const auto neighbours = nearest_rows(comm, train, test, options);
  const auto width = static_cast<std::size_t>(classes);
  std::vector<KnnVotes> out;
  for (const auto k : options.k)
    for (const double temperature : options.temperature)
      out.push_back({k, temperature, std::vector<double>(test.rows() * width), std::vector<std::int32_t>(test.rows())});
  for_each_vote(neighbours, options, classes, [&](std::size_t row, std::size_t pair, std::span<const double> votes) {
    std::ranges::copy(votes, out[pair].votes.begin() + static_cast<std::ptrdiff_t>(row * width));
    out[pair].predicted[row] = winner(votes);
  });
  return out;
}

KnnReport knn_report(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                     const KnnOptions& options) {
  const auto train_labelled = count_labels(comm, train), test_labelled = count_labels(comm, test);
  const auto highest = comm.all_reduce(std::max(highest_label(train), highest_label(test)), comm::Op::max);
  std::int64_t classes = 0;
  std::vector<std::string> names;
  std::vector<std::int32_t> train_labels, test_labels;
  KnnReport report;
  comm::agree(comm, "k-NN labels", [&] {
    for (const auto* table : {&train, &test}) {
      const auto named = static_cast<std::int64_t>(table->info.classes.size());
      if (const auto label = highest_label(*table); named > 0 && label >= named)
        throw Error(ExitCode::file,
                    fmt::format("k-NN: label {} in a set of {} classes ({})", label, named, table->info.name()));
    }
    names = common_classes(train.info.classes, train.info.name(), test.info.classes, test.info.name());
    if (train_labelled == 0 || test_labelled == 0)
      throw Error(ExitCode::file,
                  fmt::format("k-NN: no image of {} has a label", (train_labelled == 0 ? train : test).info.name()),
                  "pack it with --labels folder");
    // If labels have no names, the number of classes follows from the highest label.
    classes = names.empty() ? highest + 1 : static_cast<std::int64_t>(names.size());
    train_labels = labels_among(names, train);
    test_labels = labels_among(names, test);
  });
  report.classes = classes;
  const auto train_classes = per_class(comm, train_labels, classes);
  const auto test_classes = per_class(comm, test_labels, classes);
  report.train_rows = std::reduce(train_classes.begin(), train_classes.end());
  report.test_rows = std::reduce(test_classes.begin(), test_classes.end());
  comm::agree(comm, "k-NN images", [&] {
    if (report.train_rows > 0 && report.test_rows > 0) return;
    throw Error(
        ExitCode::file,
        fmt::format("k-NN: {} labelled training images and {} labelled test images decode; both must be at least 1",
                    report.train_rows, report.test_rows));
  });
  try {
    require_learnable(train.info.name(), train_classes, test.info.name(), test_classes, names);
  } catch (const Error& error) {  // the same on every rank
    if (options.all_known) throw error.as_agreed();
    log::warn(fmt::format("k-NN: {}", error.what()));
  }
  const auto neighbours = nearest_rows(comm, train, test, options);
  for (const auto k : options.k) {
    if (k > report.train_rows)
      log::warn(
          fmt::format("k-NN: k = {}, but the training set has {} images: all of them vote", k, report.train_rows));
  }
  const auto n = static_cast<double>(report.test_rows);
  report.largest_class = static_cast<double>(*std::ranges::max_element(test_classes)) / n;
  const auto width = static_cast<std::size_t>(classes);
  std::vector<std::int64_t> among(options.k.size() * options.temperature.size()), right(among.size() * width);
  for (const auto k : options.k)
    for (const double temperature : options.temperature)
      report.scores.push_back(
          {.k = k, .temperature = temperature, .predicted = std::vector<std::int32_t>(test.rows())});
  for_each_vote(neighbours, options, classes, [&](std::size_t row, std::size_t pair, std::span<const double> votes) {
    const auto label = test_labels[row], first = report.scores[pair].predicted[row] = winner(votes);
    if (label < 0) return;
    right[pair * width + static_cast<std::size_t>(label)] += first == label ? 1 : 0;
    among[pair] += among_five(votes, label) ? 1 : 0;
  });
  comm.all_reduce(std::span(among));
  comm.all_reduce(std::span(right));
  const auto present = static_cast<double>(std::ranges::count_if(test_classes, [](auto images) { return images > 0; }));
  for (std::size_t pair = 0; pair < among.size(); ++pair) {
    auto& score = report.scores[pair];
    score.top5 = static_cast<double>(among[pair]) / n;
    for (std::size_t c = 0; c < width; ++c) {
      const auto of_class = static_cast<double>(right[pair * width + c]);
      score.top1 += of_class;
      if (test_classes[c] > 0) score.mean_per_class += of_class / static_cast<double>(test_classes[c]) / present;
    }
    score.top1 /= n;
  }
  report.class_names = std::move(names);
  report.truth = std::move(test_labels);
  return report;
}

FeatureTable few_rows(const comm::Communicator& comm, const FeatureTable& table, const data::SubsetChoice& choice) {
  std::string mine(table.rows() * sizeof(std::int32_t), ' ');
  for (std::size_t i = 0; i < table.rows(); ++i) {
    const std::int32_t label = table.bad[i] != 0 ? -1 : table.labels[i];
    std::memcpy(&mine[i * sizeof label], &label, sizeof label);
  }
  data::Targets classes_of;
  std::int32_t highest = -1;
  for (const auto& bytes : comm.all_gather(mine)) {
    for (std::size_t i = 0; i < bytes.size(); i += sizeof(std::int32_t)) {
      std::int32_t label = 0;
      std::memcpy(&label, &bytes[i], sizeof label);
      classes_of.add({&label, label < 0 ? 0U : 1U});
      highest = std::max(highest, label);
    }
  }
  std::vector<std::uint64_t> chosen;
  comm::agree(comm, "choosing training images", [&] {
    chosen = data::choose_subset(classes_of, highest + 1, choice, table.info.classes);
    std::erase_if(chosen, [&](std::uint64_t i) { return classes_of.of(i).empty(); });
  });
  const auto begin = std::ranges::lower_bound(chosen, table.first);
  const auto end = std::ranges::lower_bound(chosen, table.first + table.rows());
  FeatureTable out;
  out.info = table.info;
  out.info.images = chosen.size();
  out.first = static_cast<std::uint64_t>(begin - chosen.begin());
  const auto d = static_cast<std::ptrdiff_t>(table.info.dimension);
  for (auto at = begin; at != end; ++at) {
    const auto i = static_cast<std::size_t>(*at - table.first);
    const auto row = table.values.begin() + static_cast<std::ptrdiff_t>(i) * d;
    out.values.insert(out.values.end(), row, row + d);
    out.labels.push_back(table.labels[i]);
    out.index.push_back(table.index[i]);
    out.bad.push_back(table.bad[i]);
    if (!table.checksum.empty()) out.checksum.push_back(table.checksum[i]);
  }
  return out;
}

void remove_mean(const comm::Communicator& comm, FeatureTable& train, FeatureTable& test) {
  const auto d = static_cast<std::size_t>(train.info.dimension);
  std::vector<double> mean(d + 1, 0.0);  // the last element counts rows
  for (std::size_t i = 0; i < train.rows(); ++i) {
    if (train.bad[i] != 0) continue;
    for (std::size_t j = 0; j < d; ++j) mean[j] += static_cast<double>(train.values[i * d + j]);
    mean[d] += 1;
  }
  comm.all_reduce(mean);
  for (auto* table : {&train, &test})
    for (std::size_t i = 0; i < table->values.size(); ++i)
      table->values[i] -= static_cast<float>(mean[i % d] / std::max(mean[d], 1.0));
}

}  // namespace seer::eval
