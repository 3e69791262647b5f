// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/kmeans.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>

#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::eval {
namespace {

double dot(const float* a, const float* b, std::size_t d) {
  double sum = 0;
  for (std::size_t j = 0; j < d; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(b[j]);
  return sum;
}

/// Brings a row to length one. False if it has no direction.
bool to_unit(float* row, std::size_t d) {
  const double scale = 1 / std::sqrt(dot(row, row, d));
  if (!std::isfinite(scale)) return false;
  for (std::size_t j = 0; j < d; ++j) row[j] = static_cast<float>(static_cast<double>(row[j]) * scale);
  return true;
}

/// A row that fits its centre badly.
struct Misfit {
  double similarity;
  std::int64_t row;  ///< among those of all ranks
  auto operator<=>(const Misfit&) const = default;
};

class Kmeans {
 public:
  Kmeans(const comm::Communicator& comm, std::vector<float> rows, std::int64_t columns, std::int64_t clusters)
      : comm_(comm),
        rows_(std::move(rows)),
        d_(static_cast<std::size_t>(columns)),
        k_(static_cast<std::size_t>(clusters)),
        n_(rows_.size() / d_),
        cluster_of_(n_, -1),
        similarity_(n_) {
    const auto counts = comm.all_gather(static_cast<std::int64_t>(n_));
    first_ = std::reduce(counts.begin(), counts.begin() + comm.rank(), std::int64_t{0});
    total_ = std::reduce(counts.begin(), counts.end(), std::int64_t{0});
    comm::agree(comm, "k-means", [&] {
      if (total_ < clusters)
        throw Error(ExitCode::input, fmt::format("k-means: {} rows for {} clusters", total_, clusters),
                    "use more images, or fewer clusters");
      for (std::size_t i = 0; i < n_; ++i) {
        const auto row = std::span(rows_).subspan(i * d_, d_);
        if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); }))
          throw Error(ExitCode::numerics,
                      fmt::format("k-means: row {} is not finite", first_ + static_cast<std::int64_t>(i)),
                      "these weights have diverged; take an earlier checkpoint");
        to_unit(row.data(), d_);
      }
    });
    std::vector<std::int64_t> starts;
    for (std::int64_t c = 0; c < clusters; ++c)
      starts.push_back(total_ / clusters * c + total_ % clusters * c / clusters);
    out_.centres.resize(k_ * d_);
    std::vector<std::size_t> all(k_);
    std::iota(all.begin(), all.end(), 0);
    set_centres(all, starts);
  }

  Clusters run(std::int64_t most_rounds) && {
    assign();
    while (out_.rounds < most_rounds) {
      ++out_.rounds;
      move_centres();
      if (assign() == 0) break;
    }
    const auto sizes = this->sizes();
    out_.smallest = *std::ranges::min_element(sizes);
    out_.largest = *std::ranges::max_element(sizes);
    out_.similarity = comm_.all_reduce(std::reduce(similarity_.begin(), similarity_.end(), 0.0), comm::Op::sum) /
                      static_cast<double>(total_);
    return std::move(out_);
  }

 private:
  /// Centre which[i] becomes row `rows[i]` of all ranks' rows. Collective.
  void set_centres(const std::vector<std::size_t>& which, const std::vector<std::int64_t>& rows) {
    std::vector<float> values(which.size() * d_);
    for (std::size_t i = 0; i < which.size(); ++i)
      if (const auto here = rows[i] - first_; here >= 0 && here < static_cast<std::int64_t>(n_))
        std::copy_n(&rows_[static_cast<std::size_t>(here) * d_], d_, &values[i * d_]);
    comm_.all_reduce(std::span(values));  // all other ranks have zeros
    for (std::size_t i = 0; i < which.size(); ++i) std::copy_n(&values[i * d_], d_, &out_.centres[which[i] * d_]);
  }

  /// Each row joins its nearest centre. Returns how many rows, of all ranks, changed. Collective. The matrix product
  /// only preselects: its last bits depend on a row's place, and would decide between equal centres.
  std::int64_t assign() {
    constexpr std::size_t kRows = 512;
    const float margin = static_cast<float>(d_) * 0x1p-21F;  // twice the largest error of a product
    std::int64_t changed = 0;
    products_.resize(std::min(kRows, n_) * k_);
    for (std::size_t begin = 0; begin < n_; begin += kRows) {
      const auto m = std::min(kRows, n_ - begin);
      dnn_->gemm(queue_, static_cast<std::int64_t>(m), static_cast<std::int64_t>(k_), static_cast<std::int64_t>(d_),
                 &rows_[begin * d_], dnn::Transpose::no, out_.centres.data(), dnn::Transpose::yes, products_.data());
      for (std::size_t i = 0; i < m; ++i) {
        const auto of_row = std::span(products_).subspan(i * k_, k_);
        const float least = *std::ranges::max_element(of_row) - margin;
        std::int64_t best = -1;
        auto& similarity = similarity_[begin + i];
        for (std::size_t c = 0; c < k_; ++c) {
          if (of_row[c] < least) continue;
          const double exact = dot(&rows_[(begin + i) * d_], &out_.centres[c * d_], d_);
          if (best >= 0 && exact <= similarity) continue;
          best = static_cast<std::int64_t>(c);
          similarity = exact;
        }
        auto& cluster = cluster_of_[begin + i];
        changed += cluster == best ? 0 : 1;
        cluster = best;
      }
    }
    return comm_.all_reduce(changed, comm::Op::sum);
  }

  std::vector<std::int64_t> sizes() const {
    std::vector<std::int64_t> out(k_);
    for (const auto cluster : cluster_of_) ++out[static_cast<std::size_t>(cluster)];
    comm_.all_reduce(std::span(out));
    return out;
  }

  /// Collective.
  void move_centres() {
    std::vector<double> sums(k_ * d_);
    for (std::size_t i = 0; i < n_; ++i) {
      double* const sum = &sums[static_cast<std::size_t>(cluster_of_[i]) * d_];
      for (std::size_t j = 0; j < d_; ++j) sum[j] += static_cast<double>(rows_[i * d_ + j]);
    }
    comm_.all_reduce(std::span(sums));
    std::ranges::transform(sums, out_.centres.begin(), [](double value) { return static_cast<float>(value); });
    std::vector<std::size_t> empty;
    for (std::size_t c = 0; c < k_; ++c)
      if (!to_unit(&out_.centres[c * d_], d_)) empty.push_back(c);
    if (!empty.empty()) set_centres(empty, misfits(empty.size()));
  }

  /// The rows, of all ranks, that fit their centres worst. Collective.
  std::vector<std::int64_t> misfits(std::size_t count) const {
    std::vector<Misfit> worst;
    for (std::size_t i = 0; i < n_; ++i) worst.push_back({similarity_[i], first_ + static_cast<std::int64_t>(i)});
    const auto keep = [&] {
      std::ranges::sort(worst);
      worst.resize(std::min(count, worst.size()));
    };
    keep();
    const auto all =
        comm_.all_gather(std::string(reinterpret_cast<const char*>(worst.data()), worst.size() * sizeof(Misfit)));
    worst.clear();
    for (const auto& bytes : all) {
      const auto before = worst.size();
      worst.resize(before + bytes.size() / sizeof(Misfit));
      std::memcpy(worst.data() + before, bytes.data(), bytes.size());
    }
    keep();
    std::vector<std::int64_t> out;
    for (const auto& misfit : worst) out.push_back(misfit.row);
    return out;
  }

  const comm::Communicator& comm_;
  std::vector<float> rows_;
  std::size_t d_, k_, n_;
  std::int64_t first_ = 0, total_ = 0;  ///< this rank's first row; rows of all ranks
  std::vector<std::int64_t> cluster_of_;
  std::vector<double> similarity_;  ///< of each row to its centre
  std::vector<float> products_;
  std::unique_ptr<dnn::Backend> dnn_ = dnn::make_host_backend();
  device::Queue queue_;
  Clusters out_;
};

}  // namespace

Clusters spherical_kmeans(const comm::Communicator& comm, std::vector<float> rows, std::int64_t columns,
                          std::int64_t clusters, std::int64_t most_rounds) {
  return Kmeans(comm, std::move(rows), columns, clusters).run(most_rounds);
}

}  // namespace seer::eval
