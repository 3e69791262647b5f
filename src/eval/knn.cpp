// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/knn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <numeric>
#include <set>
#include <span>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::eval {
namespace {

struct Neighbour {
  float similarity;
  std::int32_t label;
  std::uint64_t row;  ///< in the training set
};
/// Orders by decreasing similarity; if equal, the earlier row first.
bool nearer(const Neighbour& a, const Neighbour& b) {
  return a.similarity != b.similarity ? a.similarity > b.similarity : a.row < b.row;
}

/// The rows of a table, prepared for comparison, and the largest length of a row.
struct Rows {
  std::vector<float> values;
  double longest = 0;
};

/// Checks that the rows are finite, and L2-normalises them for cosine.
Rows comparable_rows(const FeatureTable& table, bool cosine) {
  const auto d = static_cast<std::size_t>(table.info.dimension);
  Rows out{table.values};
  for (std::size_t i = 0; i < table.rows(); ++i) {
    float* row = out.values.data() + i * d;
    double square = 0;
    for (std::size_t j = 0; j < d; ++j) square += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    if (!std::isfinite(square)) {
      throw Error(ExitCode::numerics,
                  fmt::format("{} on {}: features of image {} are not finite", table.info.source, table.info.data,
                              table.index[i]),
                  "these weights have diverged; take an earlier checkpoint");
    }
    const double length = std::sqrt(square), scale = cosine ? 1.0 / std::max(length, 1e-12) : 1.0;
    for (std::size_t j = 0; cosine && j < d; ++j) row[j] = static_cast<float>(static_cast<double>(row[j]) * scale);
    out.longest = std::max(out.longest, cosine ? 1.0 : length);
  }
  return out;
}

/// If dot products could leave the range of float, divides the rows by powers of two, which causes no rounding. Returns
/// the factor to multiply similarities with. Collective.
double keep_in_range(const comm::Communicator& comm, Rows& train, Rows& test) {
  for (auto* rows : {&train, &test}) rows->longest = comm.all_reduce(rows->longest, comm::Op::max);
  if (train.longest * test.longest < 1e38) return 1;
  int exponents = 0;
  for (auto* rows : {&train, &test}) {
    const int exponent = std::ilogb(rows->longest);
    exponents += exponent;
    for (auto& value : rows->values) value = std::ldexp(value, -exponent);
    rows->longest = std::ldexp(rows->longest, -exponent);
  }
  return std::ldexp(1.0, exponents);
}

/// The k nearest training rows so far for each test row: heaps whose front is the farthest row kept.
class Nearest {
 public:
  Nearest(std::size_t rows, std::size_t k) : k_(k), heaps_(rows) {}

  void offer(std::size_t row, const Neighbour& n) {
    auto& heap = heaps_[row];
    if (heap.size() == k_) {
      if (!nearer(n, heap.front())) return;
      std::pop_heap(heap.begin(), heap.end(), nearer);
      heap.back() = n;
    } else {
      heap.push_back(n);
    }
    std::push_heap(heap.begin(), heap.end(), nearer);
  }
  bool may_enter(std::size_t row, double similarity) const {
    const auto& heap = heaps_[row];
    return heap.size() < k_ || similarity >= static_cast<double>(heap.front().similarity);
  }
  const std::vector<Neighbour>& sorted(std::size_t row) {
    std::sort_heap(heaps_[row].begin(), heaps_[row].end(), nearer);
    return heaps_[row];
  }

 private:
  std::size_t k_;
  std::vector<std::vector<Neighbour>> heaps_;
};

/// A block of training rows, sent from the rank that owns them to all ranks.
struct TrainBlock {
  std::uint64_t first = 0, count = 0;
  std::vector<float> rows;
  std::vector<std::int32_t> labels;
};

/// The same result on every processor, wherever the rows lie: products of floats are exact in double precision.
float dot(const float* a, const float* b, std::size_t d) {
  double sum = 0;
  for (std::size_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return static_cast<float>(sum);
}

/// Offers the rows of a block as neighbours. The matrix product only preselects: its last bits depend on the processor
/// and on a row's place in its block, so equal rows could get different results. `margin`: its largest possible error.
void compare(dnn::Backend& dnn, const std::vector<float>& test_rows, std::size_t d, const TrainBlock& block,
             double margin, std::vector<float>& similarity, Nearest& nearest) {
  constexpr std::size_t kTestRows = 1024;
  device::Queue queue;
  const std::size_t tests = test_rows.size() / d, count = block.count;
  for (std::size_t begin = 0; begin < tests; begin += kTestRows) {
    const std::size_t m = std::min(kTestRows, tests - begin);
    similarity.resize(m * count);
    dnn.gemm(queue, static_cast<std::int64_t>(m), static_cast<std::int64_t>(count), static_cast<std::int64_t>(d),
             test_rows.data() + begin * d, dnn::Transpose::no, block.rows.data(), dnn::Transpose::yes,
             similarity.data());
    for (std::size_t i = 0; i < m; ++i) {
      for (std::size_t j = 0; j < count; ++j) {
        const auto row = begin + i;
        if (block.labels[j] < 0 || !nearest.may_enter(row, margin + static_cast<double>(similarity[i * count + j])))
          continue;
        nearest.offer(
            row, {dot(test_rows.data() + row * d, block.rows.data() + j * d, d), block.labels[j], block.first + j});
      }
    }
  }
}

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
bool among_five(const double* votes, std::int64_t classes, std::int32_t label) {
  if (!(votes[label] > 0)) return false;
  int ahead = 0;
  for (std::int64_t c = 0; c < classes; ++c)
    if (votes[c] > votes[label] || (votes[c] == votes[label] && c < label)) ++ahead;
  return ahead < 5;
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
  log::warn(fmt::format("k-NN: the training set has no image of {}{}; test images of these classes count as wrong: {}",
                        names, classes > kShown ? fmt::format(" and {} more classes", classes - kShown) : "", images));
}

}  // namespace

std::vector<KnnVotes> knn_votes(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                                std::int64_t classes, const KnnOptions& options) {
  Rows test_rows, train_rows;
  comm::agree(comm, "k-NN", [&] {
    if (options.k.empty() || *std::ranges::min_element(options.k) < 1 || !(options.temperature > 0))
      throw Error(ExitCode::input,
                  fmt::format("k-NN: wanted k >= 1 and temperature > 0 (found temperature {})", options.temperature));
    if (train.info.dimension != test.info.dimension)
      throw Error(ExitCode::input,
                  fmt::format("k-NN: training features have {} dimensions, test features {}", train.info.dimension,
                              test.info.dimension),
                  "compute both with the same weights and layer");
    test_rows = comparable_rows(test, options.cosine);
    train_rows = comparable_rows(train, options.cosine);
  });
  const auto d = static_cast<std::size_t>(train.info.dimension);
  const auto k_max = static_cast<std::size_t>(*std::ranges::max_element(options.k));
  const double unit = keep_in_range(comm, train_rows, test_rows);
  // Upper bound for the error of a dot product of d floats in single precision, whatever the order of summation.
  const double margin = static_cast<double>(d) * 0x1p-22 * train_rows.longest * test_rows.longest;
  const auto dnn = dnn::make_host_backend();
  constexpr double kQuiet_s = 10;  // a short comparison prints only its result, no progress
  const Clock clock;
  Eta eta(static_cast<double>(train.info.images));
  Nearest nearest(test.rows(), k_max);
  std::vector<float> similarity;
  TrainBlock block;
  for (int owner = 0; owner < comm.size(); ++owner) {
    std::array<std::uint64_t, 2> extent = {train.first, train.rows()};
    comm.broadcast(extent.data(), sizeof(extent), owner);
    const auto [first, rows] = extent;
    for (std::uint64_t begin = 0; begin < rows; begin += block.count) {
      block.first = first + begin;
      block.count = std::min(static_cast<std::uint64_t>(options.block_rows), rows - begin);
      block.rows.resize(block.count * d);
      block.labels.resize(block.count);
      if (comm.rank() == owner) {
        std::copy_n(train_rows.values.begin() + static_cast<std::ptrdiff_t>(begin * d), block.count * d,
                    block.rows.begin());
        for (std::uint64_t i = 0; i < block.count; ++i)
          block.labels[i] = train.bad[begin + i] != 0 ? -1 : train.labels[begin + i];
      }
      comm.broadcast(block.rows.data(), block.rows.size() * sizeof(float), owner);
      comm.broadcast(block.labels.data(), block.labels.size() * sizeof(std::int32_t), owner);
      compare(*dnn, test_rows.values, d, block, margin, similarity, nearest);
      eta.done(static_cast<double>(block.count));
      if (const auto left = time_left(eta); !left.empty() && clock.seconds() > kQuiet_s) {
        log::progress(fmt::format("k-NN of {} in {}: {}/{} training images compared{}", test.info.data, train.info.data,
                                  block.first + block.count, train.info.images, left));
      }
    }
  }
  std::vector<KnnVotes> out;
  const auto width = static_cast<std::size_t>(classes);
  for (const auto k : options.k)
    out.push_back({k, std::vector<double>(test.rows() * width, 0.0), std::vector<std::int32_t>(test.rows(), -1)});
  for (std::size_t row = 0; row < test.rows(); ++row) {
    const auto& neighbours = nearest.sorted(row);
    for (auto& result : out) {
      double* votes = result.votes.data() + row * width;
      vote(neighbours, unit, options.temperature, static_cast<std::size_t>(result.k), votes);
      result.predicted[row] = static_cast<std::int32_t>(std::max_element(votes, votes + width) - votes);
    }
  }
  return out;
}

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
  std::ranges::copy_if(test, std::back_inserter(both), [&](const auto& name) { return !known.contains(name); });
  return both;
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
                    fmt::format("k-NN: label {} in a set of {} classes ({})", label, named, table->info.data));
    }
    names = common_classes(train.info.classes, train.info.data, test.info.classes, test.info.data);
    if (train_labelled == 0 || test_labelled == 0)
      throw Error(ExitCode::file,
                  fmt::format("k-NN: no image of {} has a label", (train_labelled == 0 ? train : test).info.data),
                  "pack it with --labels folder");
    // If labels have no names, the number of classes follows from the highest label.
    classes = names.empty() ? highest + 1 : static_cast<std::int64_t>(names.size());
    train_labels = labels_among(names, train);
    test_labels = labels_among(names, test);
  });
  const auto votes = knn_votes(comm, train, test, classes, options);
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
  warn_of_strange_classes(train_classes, test_classes, names);
  for (const auto k : options.k) {
    if (k > report.train_rows)
      log::warn(
          fmt::format("k-NN: k = {}, but the training set has {} images: all of them vote", k, report.train_rows));
  }
  const auto n = static_cast<double>(report.test_rows);
  report.largest_class = static_cast<double>(*std::ranges::max_element(test_classes)) / n;
  for (const auto& result : votes) {
    std::array<std::int64_t, 2> right = {0, 0};
    for (std::size_t i = 0; i < test.rows(); ++i) {
      if (test_labels[i] < 0) continue;
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
  for (auto* table : {&train, &test})
    for (std::size_t i = 0; i < table->values.size(); ++i)
      table->values[i] -= static_cast<float>(mean[i % d] / std::max(mean[d], 1.0));
}

}  // namespace seer::eval
