// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <set>
#include <span>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/eval/knn.hpp"

namespace seer::eval {
namespace {

struct Labelled {
  std::int64_t train = 0, test = 0, highest = -1;  ///< over all ranks
};

Labelled count_labels(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test) {
  Labelled out;
  for (const auto label : train.labels) {
    out.highest = std::max<std::int64_t>(out.highest, label);
    out.train += label >= 0 ? 1 : 0;
  }
  for (const auto label : test.labels) {
    out.highest = std::max<std::int64_t>(out.highest, label);
    out.test += label >= 0 ? 1 : 0;
  }
  out.highest = comm.all_reduce(out.highest, comm::Op::max);
  out.train = comm.all_reduce(out.train, comm::Op::sum);
  out.test = comm.all_reduce(out.test, comm::Op::sum);
  return out;
}

/// The test set's labels as indices into `classes`, which begin with the training set's classes.
std::vector<std::int32_t> labels_among(const std::vector<std::string>& classes, const FeatureTable& test) {
  std::vector<std::int32_t> out = test.labels;
  std::vector<std::int32_t> places;
  for (const auto& name : test.info.classes) {
    places.push_back(static_cast<std::int32_t>(std::find(classes.begin(), classes.end(), name) - classes.begin()));
  }
  for (auto& label : out) {
    if (label >= 0 && !places.empty()) label = places.at(static_cast<std::size_t>(label));
  }
  return out;
}

/// Number of classes. If labels have no names, it follows from the highest label.
std::int64_t count_classes(const Labelled& labelled, const std::vector<std::string>& classes, const FeatureTable& train,
                           const FeatureTable& test) {
  if (labelled.train == 0 || labelled.test == 0) {
    throw Error(ExitCode::file,
                fmt::format("k-NN: no image of {} has a label", labelled.train == 0 ? train.info.data : test.info.data),
                "pack it with --labels folder");
  }
  return classes.empty() ? labelled.highest + 1 : static_cast<std::int64_t>(classes.size());
}

void check_labels(const FeatureTable& table) {
  const auto classes = static_cast<std::int64_t>(table.info.classes.size());
  const auto highest = table.labels.empty() ? -1 : *std::max_element(table.labels.begin(), table.labels.end());
  if (classes > 0 && highest >= classes) {
    throw Error(ExitCode::file,
                fmt::format("k-NN: label {} in a set of {} classes ({})", highest, classes, table.info.data));
  }
}

/// True if the label is among the five classes with most votes. A class without votes never is.
bool among_five(const double* votes, std::int64_t classes, std::int32_t label) {
  if (!(votes[label] > 0)) return false;
  int ahead = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    if (votes[c] > votes[label] || (votes[c] == votes[label] && c < label)) ++ahead;
  }
  return ahead < 5;
}

/// Number of usable images per class, over all ranks.
std::vector<std::int64_t> per_class(const comm::Communicator& comm, const std::vector<std::int32_t>& labels,
                                    const std::vector<std::uint8_t>& bad, std::int64_t classes) {
  std::vector<std::int64_t> out(static_cast<std::size_t>(classes), 0);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && bad[i] == 0) ++out[static_cast<std::size_t>(labels[i])];
  }
  comm.all_reduce(std::span(out));
  return out;
}

/// Warns of test images whose class has no training image.
void warn_of_strange_classes(const std::vector<std::int64_t>& train, const std::vector<std::int64_t>& test,
                             const std::vector<std::string>& names_of_classes) {
  constexpr int kShown = 5;
  std::int64_t images = 0, classes = 0;
  std::string names;
  for (std::size_t c = 0; c < test.size(); ++c) {
    if (train[c] > 0 || test[c] == 0) continue;
    images += test[c];
    if (classes++ >= kShown) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ",
                         c < names_of_classes.size() ? names_of_classes[c] : fmt::format("{}", c));
  }
  if (images == 0) return;
  log::warn(
      fmt::format("k-NN: the training set has no image of {}{}; test images of such classes, which count as "
                  "wrong: {}",
                  names, classes > kShown ? fmt::format(" and {} more classes", classes - kShown) : "", images));
}

}  // namespace

std::vector<std::string> common_classes(const std::vector<std::string>& train, const std::string& train_name,
                                        const std::vector<std::string>& test, const std::string& test_name) {
  if (train.empty() != test.empty()) {
    throw Error(ExitCode::file,
                fmt::format("k-NN: {} names no classes, {} names {}", train.empty() ? train_name : test_name,
                            train.empty() ? test_name : train_name, std::max(train.size(), test.size())),
                "labels are compared by the names of their classes: pack both sets with seer pack");
  }
  std::vector<std::string> both = train;
  const std::set<std::string> known(train.begin(), train.end());
  std::copy_if(test.begin(), test.end(), std::back_inserter(both),
               [&](const auto& name) { return !known.contains(name); });
  return both;
}

KnnReport knn_report(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                     const KnnOptions& options) {
  const auto labelled = count_labels(comm, train, test);
  std::int64_t classes = 0;
  std::vector<std::string> names;
  std::vector<std::int32_t> test_labels;
  KnnReport report;
  comm::agree(comm, "k-NN labels", [&] {
    check_labels(train);
    check_labels(test);
    names = common_classes(train.info.classes, train.info.data, test.info.classes, test.info.data);
    classes = count_classes(labelled, names, train, test);
    test_labels = labels_among(names, test);
  });
  const auto votes = knn_votes(comm, train, test, classes, options);
  const auto usable = [](const FeatureTable& t, std::size_t i) { return t.labels[i] >= 0 && t.bad[i] == 0; };
  report.classes = classes;
  const auto train_classes = per_class(comm, train.labels, train.bad, classes);
  const auto test_classes = per_class(comm, test_labels, test.bad, classes);
  report.train_rows = std::accumulate(train_classes.begin(), train_classes.end(), std::int64_t{0});
  report.test_rows = std::accumulate(test_classes.begin(), test_classes.end(), std::int64_t{0});
  comm::agree(comm, "k-NN images", [&] {
    if (report.train_rows > 0 && report.test_rows > 0) return;
    throw Error(ExitCode::file, fmt::format("k-NN: {} labelled training and {} labelled test images decode",
                                            report.train_rows, report.test_rows));
  });
  warn_of_strange_classes(train_classes, test_classes, names);
  for (const auto k : options.k) {
    if (k > report.train_rows)
      log::warn(fmt::format("k-NN: k = {} of {} training images: all of them vote", k, report.train_rows));
  }
  const auto n = static_cast<double>(report.test_rows);
  report.largest_class = static_cast<double>(*std::max_element(test_classes.begin(), test_classes.end())) / n;
  for (const auto& result : votes) {
    std::array<std::int64_t, 2> right = {0, 0};
    for (std::size_t i = 0; i < test.rows(); ++i) {
      if (!usable(test, i)) continue;
      right[0] += result.predicted[i] == test_labels[i] ? 1 : 0;
      right[1] +=
          among_five(result.votes.data() + i * static_cast<std::size_t>(classes), classes, test_labels[i]) ? 1 : 0;
    }
    comm.all_reduce(right);
    report.scores.push_back({result.k, static_cast<double>(right[0]) / n, static_cast<double>(right[1]) / n});
  }
  return report;
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
  for (auto* table : {&train, &test}) {
    for (std::size_t i = 0; i < table->values.size(); ++i) {
      table->values[i] -= static_cast<float>(mean[i % d] / std::max(mean[d], 1.0));
    }
  }
}

}  // namespace seer::eval
