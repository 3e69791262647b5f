// SPDX-License-Identifier: Apache-2.0
#include "neighbours.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::eval {
namespace {

/// Orders by decreasing similarity; if equal, the earlier row first.
bool nearer(const Neighbour& a, const Neighbour& b) {
  return a.similarity != b.similarity ? a.similarity > b.similarity : a.row < b.row;
}

/// The rows of a table as they are compared: some columns, scaled. The table itself stays as it is.
class Rows {
 public:
  /// Cosine: scales the rows to length one. Error(numerics) if a value is not finite.
  Rows(const FeatureTable& table, const FeatureColumns& columns, bool cosine)
      : table_(table), columns_(columns), scales_(table.rows(), 1.0) {
    for (std::size_t i = 0; i < table.rows(); ++i) {
      double square = 0;
      for (std::size_t j = 0; j < width(); ++j)
        square += static_cast<double>(row(i)[j]) * static_cast<double>(row(i)[j]);
      if (!std::isfinite(square)) {
        throw Error(ExitCode::numerics,
                    fmt::format("{} on {}: features of image {} are not finite", table.info.source, table.info.name(),
                                table.index[i]),
                    "these weights have diverged; take an earlier checkpoint");
      }
      const double length = std::sqrt(square);
      if (cosine) scales_[i] = 1.0 / std::max(length, 1e-12);
      longest_ = std::max(longest_, cosine ? 1.0 : length);
    }
  }

  std::size_t width() const { return static_cast<std::size_t>(columns_.width); }
  double longest() const { return longest_; }
  void longest_of_all(const comm::Communicator& comm) { longest_ = comm.all_reduce(longest_, comm::Op::max); }
  /// Divides the rows by a power of two, which causes no rounding. Returns its exponent.
  int shrink() {
    const int exponent = std::ilogb(longest_);
    for (double& scale : scales_) scale = std::ldexp(scale, -exponent);
    longest_ = std::ldexp(longest_, -exponent);
    return exponent;
  }
  void copy(std::size_t first, std::size_t count, float* out) const {
    for (std::size_t i = first; i < first + count; ++i)
      for (std::size_t j = 0; j < width(); ++j)
        *out++ = static_cast<float>(static_cast<double>(row(i)[j]) * scales_[i]);
  }

 private:
  const float* row(std::size_t i) const {
    return table_.values.data() + i * static_cast<std::size_t>(table_.info.dimension) +
           static_cast<std::size_t>(columns_.begin);
  }
  const FeatureTable& table_;
  FeatureColumns columns_;
  std::vector<double> scales_;
  double longest_ = 0;
};

/// If dot products could leave the range of float, makes the rows smaller. Returns the factor to multiply similarities
/// with. Collective.
double keep_in_range(const comm::Communicator& comm, Rows& train, Rows& test) {
  for (auto* rows : {&train, &test}) rows->longest_of_all(comm);
  if (train.longest() * test.longest() < 1e38) return 1;
  return std::ldexp(1.0, train.shrink() + test.shrink());
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
  /// Each sorted, without the first `left_out`.
  std::vector<std::vector<Neighbour>> take(std::size_t left_out) && {
    for (auto& heap : heaps_) {
      std::sort_heap(heap.begin(), heap.end(), nearer);
      heap.erase(heap.begin(), heap.begin() + static_cast<std::ptrdiff_t>(std::min(left_out, heap.size())));
    }
    return std::move(heaps_);
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
  std::vector<std::uint64_t> checksums;  ///< empty unless images are recognised by them
};

/// The same result on every processor, wherever the rows lie: products of floats are exact in double precision.
float dot(const float* a, const float* b, std::size_t d) {
  double sum = 0;
  for (std::size_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return static_cast<float>(sum);
}

/// Compares this rank's test rows with blocks of training rows.
class Comparison {
 public:
  /// `margin`: the largest possible error of a product in single precision.
  Comparison(const FeatureTable& test, const Rows& rows, double margin, std::size_t k)
      : test_(test), rows_(rows), margin_(margin), nearest_(test.rows(), k) {}

  /// Offers the rows of a block as neighbours. The matrix product only preselects: its last bits depend on the
  /// processor and on a row's place in its block, so equal rows could get different results.
  void with(const TrainBlock& block) {
    constexpr std::size_t kTestRows = 1024;
    const std::size_t d = rows_.width(), count = block.count;
    for (std::size_t begin = 0; begin < test_.rows(); begin += kTestRows) {
      const std::size_t m = std::min<std::size_t>(kTestRows, test_.rows() - begin);
      chunk_.resize(m * d);
      rows_.copy(begin, m, chunk_.data());
      similarity_.resize(m * count);
      dnn_->gemm(queue_, static_cast<std::int64_t>(m), static_cast<std::int64_t>(count), static_cast<std::int64_t>(d),
                 chunk_.data(), dnn::Transpose::no, block.rows.data(), dnn::Transpose::yes, similarity_.data());
      for (std::size_t i = 0; i < m; ++i) {
        const auto row = begin + i;
        for (std::size_t j = 0; j < count; ++j) {
          const auto similarity = static_cast<double>(similarity_[i * count + j]);
          if (block.labels[j] < 0 || !nearest_.may_enter(row, margin_ + similarity)) continue;
          if (!block.checksums.empty() && block.checksums[j] == test_.checksum[row]) continue;
          nearest_.offer(row, {dot(&chunk_[i * d], block.rows.data() + j * d, d), block.labels[j], block.first + j});
        }
      }
    }
  }
  Nearest take() && { return std::move(nearest_); }

 private:
  const FeatureTable& test_;
  const Rows& rows_;
  double margin_;
  Nearest nearest_;
  device::Queue queue_;
  std::unique_ptr<dnn::Backend> dnn_ = dnn::make_host_backend();
  std::vector<float> chunk_, similarity_;
};

void check(const FeatureTable& train, const FeatureTable& test, const KnnOptions& options) {
  const auto positive = [](double value) { return value > 0; };
  if (options.k.empty() || *std::ranges::min_element(options.k) < 1 || options.temperature.empty() ||
      !std::ranges::all_of(options.temperature, positive))
    throw Error(ExitCode::input, fmt::format("k-NN: wanted k >= 1 and temperature > 0 (found k {}; temperature {})",
                                             fmt::join(options.k, ", "), fmt::join(options.temperature, ", ")));
  if (train.info.dimension != test.info.dimension)
    throw Error(ExitCode::input,
                fmt::format("k-NN: training features have {} dimensions, test features {}", train.info.dimension,
                            test.info.dimension),
                "compute both with the same weights and layer");
  if (options.leave_out == LeaveOut::same &&
      (train.checksum.size() != train.rows() || test.checksum.size() != test.rows()))
    throw Error(ExitCode::file, "k-NN: equal images are recognised by checksums, which these tables do not hold",
                "compute the tables again with this version of seer");
}

}  // namespace

Neighbours nearest_rows(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                        const KnnOptions& options) {
  auto columns = options.columns;
  if (columns.width == 0) columns = {.feature = "", .begin = 0, .width = train.info.dimension};
  std::optional<Rows> train_rows, test_rows;
  comm::agree(comm, "k-NN", [&] {
    check(train, test, options);
    test_rows.emplace(test, columns, options.cosine);
    train_rows.emplace(train, columns, options.cosine);
  });
  const auto d = train_rows->width();
  const std::size_t left_out = options.leave_out == LeaveOut::first ? 1 : 0;
  const auto k = static_cast<std::size_t>(*std::ranges::max_element(options.k)) + left_out;
  Neighbours out;
  out.unit = keep_in_range(comm, *train_rows, *test_rows);
  // Upper bound for the error of a dot product of d floats in single precision, whatever the order of summation.
  const double margin = static_cast<double>(d) * 0x1p-22 * train_rows->longest() * test_rows->longest();
  Comparison comparison(test, *test_rows, margin, k);
  constexpr double kQuiet_s = 10;  // a short comparison prints only its result, no progress
  const Clock clock;
  Eta eta(static_cast<double>(train.info.images));
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
      if (options.leave_out == LeaveOut::same) block.checksums.resize(block.count);
      if (comm.rank() == owner) {
        train_rows->copy(begin, block.count, block.rows.data());
        for (std::uint64_t i = 0; i < block.count; ++i)
          block.labels[i] = train.bad[begin + i] != 0 ? -1 : train.labels[begin + i];
        for (std::uint64_t i = 0; i < block.checksums.size(); ++i) block.checksums[i] = train.checksum[begin + i];
      }
      comm.broadcast(block.rows.data(), block.rows.size() * sizeof(float), owner);
      comm.broadcast(block.labels.data(), block.labels.size() * sizeof(std::int32_t), owner);
      if (!block.checksums.empty())
        comm.broadcast(block.checksums.data(), block.checksums.size() * sizeof(std::uint64_t), owner);
      comparison.with(block);
      eta.done(static_cast<double>(block.count));
      if (const auto left = time_left(eta); !left.empty() && clock.seconds() > kQuiet_s) {
        log::progress(fmt::format("k-NN of {} in {}: {}/{} training images compared{}", test.info.name(),
                                  train.info.name(), block.first + block.count, train.info.images, left));
      }
    }
  }
  out.of = std::move(comparison).take().take(left_out);
  return out;
}

}  // namespace seer::eval
