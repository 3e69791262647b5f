// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/quality.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "seer/base/error.hpp"
#include "seer/comm/progress.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/eval/eigen.hpp"

namespace seer::eval {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// Largest first. What is below the rounding errors of the largest becomes 0.
void clean(std::vector<double>& eigenvalues, std::int64_t rows) {
  std::ranges::sort(eigenvalues, std::greater<>());
  const auto size = std::max(static_cast<double>(rows), static_cast<double>(eigenvalues.size()));
  const double least = std::numeric_limits<double>::epsilon() * size * eigenvalues.front();
  for (auto& value : eigenvalues) value = value > least ? value : 0;
}

/// exp of the entropy of the shares of the values in their sum.
double effective_count(const std::vector<double>& values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  double entropy = 0;
  for (const double value : values)
    if (value > 0) entropy -= value / sum * std::log(value / sum);
  return std::exp(entropy);
}

/// Divides by the length. Returns false for a row of zeros, which stays as it is.
bool to_unit(const float* row, std::size_t d, double* out) {
  double square = 0;
  for (std::size_t j = 0; j < d; ++j) square += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
  for (std::size_t j = 0; j < d; ++j) out[j] = scale * static_cast<double>(row[j]);
  return square > 0;
}

void require_finite(std::span<const float> values) {
  if (!std::ranges::all_of(values, [](float x) { return std::isfinite(x); }))
    throw Error(ExitCode::numerics, "quality: features are not finite",
                "these weights have diverged; take an earlier checkpoint");
}

/// Runs `compute`, which returns `count` values, on the root, and gives them to all. Errors are agreed.
std::vector<double> on_root(const comm::Communicator& comm, std::size_t count,
                            const std::function<std::vector<double>()>& compute) {
  std::vector<double> out(count);
  comm::agree(comm, "quality", [&] {
    if (comm.is_root()) out = compute();
  });
  comm.broadcast(out.data(), out.size() * sizeof(double));
  return out;
}

}  // namespace

double effective_rank(std::vector<double> eigenvalues, std::int64_t rows) {
  clean(eigenvalues, rows);
  for (auto& value : eigenvalues) value = std::sqrt(value);  // singular values of the matrix of the rows
  return effective_count(eigenvalues);
}

Alpha power_law(std::vector<double> eigenvalues, std::int64_t rows, const QualityOptions& options) {
  clean(eigenvalues, rows);
  const auto there = static_cast<std::int64_t>(std::ranges::count_if(eigenvalues, [](double x) { return x > 0; }));
  Alpha out{kUnknown, options.alpha_first, std::min(options.alpha_last, there)};
  out.first = std::min(out.first, std::max<std::int64_t>(1, out.last / 2));
  double weights = 0, x_sum = 0, y_sum = 0, xx_sum = 0, xy_sum = 0;
  for (auto rank = out.first; rank <= out.last; ++rank) {
    const double weight = 1.0 / static_cast<double>(rank), x = std::log(static_cast<double>(rank));
    const double y = std::log(eigenvalues[static_cast<std::size_t>(rank - 1)]);
    weights += weight;
    x_sum += weight * x;
    y_sum += weight * y;
    xx_sum += weight * x * x;
    xy_sum += weight * x * y;
  }
  if (out.last > out.first) out.alpha = -(weights * xy_sum - x_sum * y_sum) / (weights * xx_sum - x_sum * x_sum);
  return out;
}

QualityMeter::QualityMeter(std::int64_t dimension, std::uint64_t images, const QualityOptions& options)
    : dimension_(dimension),
      options_(options),
      stride_(std::max<std::uint64_t>(1, (images + static_cast<std::uint64_t>(options.uniformity_images) - 1) /
                                             static_cast<std::uint64_t>(options.uniformity_images))),
      rows_(dimension),
      unit_sum_(static_cast<std::size_t>(dimension), 0.0),
      unit_squares_(static_cast<std::size_t>(dimension), 0.0) {
  if (!options.lidar) return;
  views_.emplace(dimension);
  means_.emplace(dimension);
}

void QualityMeter::add(std::span<const float> rows, std::span<const std::uint8_t> bad, std::uint64_t first) {
  const auto d = static_cast<std::size_t>(dimension_);
  require_finite(rows);
  std::vector<double> unit(d);
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (bad[i] != 0) continue;
    const auto row = rows.subspan(i * d, d);
    to_unit(row.data(), d, unit.data());
    for (std::size_t j = 0; j < d; ++j) {
      unit_sum_[j] += unit[j];
      unit_squares_[j] += unit[j] * unit[j];
    }
    if ((first + i) % stride_ == 0) sample_.insert(sample_.end(), unit.begin(), unit.end());
  }
  for (std::size_t begin = 0, i = 0; i <= bad.size(); ++i) {  // stretches without bad images
    if (i < bad.size() && bad[i] == 0) continue;
    rows_.add(rows.subspan(begin * d, (i - begin) * d));
    begin = i + 1;
  }
}

void QualityMeter::add_views(std::span<const float> rows, std::span<const std::uint8_t> bad, std::int64_t views) {
  const auto d = static_cast<std::size_t>(dimension_), q = static_cast<std::size_t>(views);
  ensure(views_per_image_ == 0 || views_per_image_ == views, "as many views of every image");
  require_finite(rows);
  views_per_image_ = views;
  std::vector<double> mean(d), unit(d), unit_sum(d);
  for (std::size_t i = 0; i < bad.size(); ++i) {
    if (bad[i] != 0) continue;
    const auto group = rows.subspan(i * q * d, q * d);
    std::ranges::fill(mean, 0.0);
    std::ranges::fill(unit_sum, 0.0);
    double lengths = 0;  // squared: 1 each, but 0 for rows of zeros
    for (std::size_t v = 0; v < q; ++v) {
      lengths += to_unit(group.data() + v * d, d, unit.data()) ? 1 : 0;
      for (std::size_t j = 0; j < d; ++j) {
        mean[j] += static_cast<double>(group[v * d + j]) / static_cast<double>(q);
        unit_sum[j] += unit[j];
      }
    }
    // The sum over pairs of |a - b|^2 is q times the sum of |a|^2, minus the square of the sum.
    const double square = std::inner_product(unit_sum.begin(), unit_sum.end(), unit_sum.begin(), 0.0);
    const auto count = static_cast<double>(q);
    distance_sum_ += std::max(0.0, count * lengths - square) / (count * (count - 1) / 2);
    ++view_images_;
    if (!views_) continue;
    views_->add(group);
    means_->add(mean);
  }
}

Quality QualityMeter::result(const comm::Communicator& comm) {
  Quality out;
  out.dimension = dimension_;
  const auto d = static_cast<std::size_t>(dimension_);
  rows_.all_reduce(comm);
  comm.all_reduce(std::span(unit_sum_));
  comm.all_reduce(std::span(unit_squares_));
  out.images = rows_.rows();
  if (out.images < std::max(2, comm.size()))
    throw Error(ExitCode::input,
                fmt::format("quality: {} images that decode, wanted at least 2, and one for each of the {} ranks",
                            out.images, comm.size()),
                "give more images, or fewer ranks")
        .as_agreed();
  const auto n = static_cast<double>(out.images);

  const auto spectrum = on_root(comm, 5, [&]() -> std::vector<double> {
    auto products = rows_.products(), centred = rows_.centred();
    double before = 0, after = 0;
    for (std::size_t j = 0; j < d; ++j) before += products[j * d + j], after += centred[j * d + j];
    if (!(after > 1e-12 * before))
      throw Error(ExitCode::numerics,
                  fmt::format("quality: all {} images have the same features: they say nothing", out.images),
                  "the network has collapsed (docs/watching.md); take an earlier checkpoint, or mend the run");
    auto values = symmetric_eigen(centred, dimension_, false).values;
    comm::tell_progress();
    const auto law = power_law(values, out.images, options_);
    return {effective_rank(symmetric_eigen(products, dimension_, false).values, out.images),
            effective_rank(std::move(values), out.images), law.alpha, static_cast<double>(law.first),
            static_cast<double>(law.last)};
  });
  out.rankme = spectrum[0];
  out.rankme_centred = spectrum[1];
  out.alpha = spectrum[2];
  out.alpha_first = static_cast<std::int64_t>(spectrum[3]);
  out.alpha_last = static_cast<std::int64_t>(spectrum[4]);
  for (std::size_t j = 0; j < d; ++j) {
    const double mean = unit_sum_[j] / n;
    out.deviation += std::sqrt(std::max(0.0, unit_squares_[j] / n - mean * mean)) / static_cast<double>(d);
  }
  out.deviation_expected = 1 / std::sqrt(static_cast<double>(d));
  out.uniformity = uniformity(comm, out);
  measure_views(comm, out);
  return out;
}

/// Each rank takes its own rows against those of all ranks, which are sent in turn.
double QualityMeter::uniformity(const comm::Communicator& comm, Quality& out) const {
  constexpr double kTemperature = 2;
  const auto dnn = dnn::make_host_backend();
  device::Queue queue;
  const auto d = static_cast<std::size_t>(dimension_), mine = sample_.size() / d;
  double sum = 0;
  std::vector<float> others, similarity;
  const auto counts = comm.all_gather(static_cast<std::int64_t>(mine));
  for (int owner = 0; owner < comm.size(); ++owner) {
    const auto count = static_cast<std::size_t>(counts[static_cast<std::size_t>(owner)]);
    if (count == 0) continue;
    others.resize(count * d);
    if (owner == comm.rank()) others = sample_;
    comm.broadcast(others.data(), others.size() * sizeof(float), owner);
    if (mine == 0) continue;
    similarity.resize(mine * count);
    dnn->gemm(queue, static_cast<std::int64_t>(mine), static_cast<std::int64_t>(count), dimension_, sample_.data(),
              dnn::Transpose::no, others.data(), dnn::Transpose::yes, similarity.data());
    for (std::size_t i = 0; i < mine; ++i)
      for (std::size_t j = 0; j < count; ++j)
        if (owner != comm.rank() || i != j)
          sum += std::exp(-kTemperature * (2 - 2 * static_cast<double>(similarity[i * count + j])));
  }
  sum = comm.all_reduce(sum, comm::Op::sum);
  out.uniformity_images = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  const auto n = static_cast<double>(out.uniformity_images);
  return n > 1 ? std::log(sum / (n * (n - 1))) : kUnknown;
}

void QualityMeter::measure_views(const comm::Communicator& comm, Quality& out) {
  out.lidar = out.alignment = kUnknown;
  out.views = comm.all_reduce(views_per_image_, comm::Op::max);
  if (out.views == 0) return;
  out.view_images = comm.all_reduce(view_images_, comm::Op::sum);
  if (out.views < 2 || out.view_images < 2) return;
  const auto n = static_cast<double>(out.view_images), q = static_cast<double>(out.views);
  out.alignment = comm.all_reduce(distance_sum_, comm::Op::sum) / n;
  if (!views_) return;
  views_->all_reduce(comm);
  means_->all_reduce(comm);
  out.lidar = on_root(comm, 1, [&]() -> std::vector<double> {
    auto between = means_->centred(), within = views_->products();
    const auto d = static_cast<std::size_t>(dimension_);
    for (std::size_t k = 0; k < within.size(); ++k) {
      within[k] = (within[k] - q * means_->products()[k]) / (n * (q - 1));
      between[k] /= n - 1;
    }
    for (std::size_t j = 0; j < d; ++j) within[j * d + j] += options_.lidar_delta;
    auto values = relative_eigenvalues(between, within, dimension_);
    clean(values, out.view_images);
    return {effective_count(values)};
  })[0];
}

void PrototypeMeter::add(std::span<const float> rows, std::span<const std::uint8_t> bad) {
  const auto n = static_cast<std::int64_t>(bad.size());
  if (n == 0) return;
  const auto dnn = dnn::make_host_backend();
  device::Queue queue;
  scores_.resize(static_cast<std::size_t>(n * count_));
  dnn->gemm(queue, n, count_, static_cast<std::int64_t>(rows.size()) / n, rows.data(), dnn::Transpose::no,
            prototypes_.data(), dnn::Transpose::yes, scores_.data());
  for (std::size_t i = 0; i < bad.size(); ++i) {
    const auto scores =
        std::span(scores_).subspan(i * static_cast<std::size_t>(count_), static_cast<std::size_t>(count_));
    if (bad[i] == 0) ++images_of_[static_cast<std::size_t>(std::ranges::max_element(scores) - scores.begin())];
  }
}

PrototypeUsage PrototypeMeter::result(const comm::Communicator& comm) const {
  auto images_of = images_of_;
  comm.all_reduce(std::span(images_of));
  PrototypeUsage out;
  out.prototypes = count_;
  out.images = std::accumulate(images_of.begin(), images_of.end(), std::int64_t{0});
  for (const auto images : images_of) {
    if (images == 0) {
      ++out.empty;
      continue;
    }
    const double share = static_cast<double>(images) / static_cast<double>(out.images);
    out.entropy -= share * std::log(share);
    out.largest_share = std::max(out.largest_share, share);
  }
  return out;
}

}  // namespace seer::eval
