// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/knn.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/eta.hpp"
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

/// Upper bound for the error of a dot product of d floats in single precision, whatever the order of summation.
double margin_of(const Rows& train, const Rows& test, std::size_t d) {
  return static_cast<double>(d) * 0x1p-22 * train.longest * test.longest;
}

/// If dot products could leave the range of float, divides the rows by powers of two, which causes no rounding. Returns
/// the factor to multiply similarities with. Collective.
double keep_in_range(const comm::Communicator& comm, Rows& train, Rows& test) {
  int exponents = 0;
  std::array<double, 2> longest = {train.longest, test.longest};
  comm.all_reduce(std::span(longest), comm::Op::max);
  train.longest = longest[0];
  test.longest = longest[1];
  if (longest[0] * longest[1] < 1e38) return 1;
  for (std::size_t i = 0; i < 2; ++i) {
    const int exponent = std::ilogb(longest[i]);
    exponents += exponent;
    auto& rows = i == 0 ? train : test;
    for (auto& value : rows.values) value = std::ldexp(value, -exponent);
    rows.longest = std::ldexp(longest[i], -exponent);
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

void check(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test, const KnnOptions& o) {
  comm::agree(comm, "k-NN", [&] {
    if (o.k.empty() || *std::min_element(o.k.begin(), o.k.end()) < 1 || !(o.temperature > 0)) {
      throw Error(ExitCode::input,
                  fmt::format("k-NN: wanted k >= 1 and temperature > 0 (found temperature {})", o.temperature));
    }
    if (train.info.dimension != test.info.dimension) {
      throw Error(ExitCode::input,
                  fmt::format("k-NN: training features have {} dimensions, test features {}", train.info.dimension,
                              test.info.dimension),
                  "compute both with the same weights and layer");
    }
  });
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
    if (weight > kVanishing) {
      votes_of_class += weight;
    } else if (votes_of_class == 0) {
      votes_of_class = kLeast * static_cast<double>(voters - i);
    }
  }
}

}  // namespace

std::vector<KnnVotes> knn_votes(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                                std::int64_t classes, const KnnOptions& options) {
  check(comm, train, test, options);
  const auto d = static_cast<std::size_t>(train.info.dimension);
  const auto k_max = static_cast<std::size_t>(*std::max_element(options.k.begin(), options.k.end()));
  Rows test_rows, train_rows;
  comm::agree(comm, "k-NN features", [&] {
    test_rows = comparable_rows(test, options.cosine);
    train_rows = comparable_rows(train, options.cosine);
    for (const auto label : train.labels) {
      if (label >= classes) {
        throw Error(ExitCode::file,
                    fmt::format("{}: label {} in a set of {} classes", train.info.data, label, classes));
      }
    }
  });
  const double unit = keep_in_range(comm, train_rows, test_rows), margin = margin_of(train_rows, test_rows, d);
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
        for (std::uint64_t i = 0; i < block.count; ++i) {
          block.labels[i] = train.bad[begin + i] != 0 ? -1 : train.labels[begin + i];
        }
      }
      comm.broadcast(block.rows.data(), block.rows.size() * sizeof(float), owner);
      comm.broadcast(block.labels.data(), block.labels.size() * sizeof(std::int32_t), owner);
      compare(*dnn, test_rows.values, d, block, margin, similarity, nearest);
      eta.done(static_cast<double>(block.count));
      if (const auto left = eta.seconds_left(); left && *left > 0 && clock.seconds() > kQuiet_s) {
        log::progress(fmt::format("k-NN of {} in {}: {}/{} training images compared, {} left", test.info.data,
                                  train.info.data, block.first + block.count, train.info.images, duration_text(*left)));
      }
    }
  }
  std::vector<KnnVotes> out;
  const auto width = static_cast<std::size_t>(classes);
  for (const auto k : options.k) {
    out.push_back({k, std::vector<double>(test.rows() * width, 0.0), std::vector<std::int32_t>(test.rows(), -1)});
  }
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

}  // namespace seer::eval
