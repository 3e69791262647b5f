// SPDX-License-Identifier: Apache-2.0
// The losses of classifiers against plain loops in double, at odd sizes, and their gradients against finite
// differences.
#include "seer/kernels/classify.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "golden.hpp"
#if defined(SEER_KERNELS_CUDA)
#include "both_spaces.hpp"
#endif

namespace seer::kernels {
namespace {

struct Case {
  std::int64_t images, crops, classes;
  double share, smoothing, scale;
  std::int64_t rows() const { return images * crops; }
};
constexpr Case kCases[] = {
    {1, 1, 2, 1, 0, 1}, {5, 2, 7, 1, 0.1, 3}, {3, 1, 1001, 0.3, 0, 20}, {4, 3, 33, 0.75, 0.2, 90}};

/// Compares d_scores with finite differences of `loss`, which takes scores in double.
void expect_gradient(const std::vector<float>& scores, const std::vector<float>& d_scores, double weight,
                     const std::function<double(const std::vector<double>&)>& loss) {
  std::vector<double> x(scores.begin(), scores.end());
  for (std::size_t i = 0; i < x.size(); i += 1 + x.size() / 40) {
    const double start = x[i], h = 1e-5;
    x[i] = start + h;
    const double above = loss(x);
    x[i] = start - h;
    const double below = loss(x);
    x[i] = start;
    EXPECT_NEAR(d_scores[i], weight * (above - below) / (2 * h), 2e-6 * weight * (1 + std::abs(start))) << i;
  }
}

TEST(Classify, CrossEntropyMatchesLoopsAndDifferences) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(std::to_string(c.classes) + " classes");
    const auto scores = test::hash_fill(static_cast<std::size_t>(c.rows() * c.classes), 3, c.scale);
    std::vector<std::int32_t> own, partner;
    for (std::int64_t i = 0; i < c.images; ++i) {
      own.push_back(static_cast<std::int32_t>((7 * i + 1) % c.classes));
      partner.push_back(static_cast<std::int32_t>(i % 2 == 0 ? own.back() : (3 * i) % c.classes));
    }
    const auto loss = [&](const std::vector<double>& s) {
      double sum = 0;
      for (std::int64_t r = 0; r < c.rows(); ++r) {
        const double* row = s.data() + r * c.classes;
        const double top = *std::max_element(row, row + c.classes);
        double all = 0;
        for (std::int64_t k = 0; k < c.classes; ++k) all += std::exp(row[k] - top);
        for (std::int64_t k = 0; k < c.classes; ++k) {
          const auto i = static_cast<std::size_t>(r % c.images);
          const double hard = (k == own[i] ? c.share : 0) + (k == partner[i] ? 1 - c.share : 0);
          const double target = (1 - c.smoothing) * hard + c.smoothing / static_cast<double>(c.classes);
          sum -= target * (row[k] - top - std::log(all));
        }
      }
      return sum;
    };
    std::vector<float> d(scores.size());
    double sums[2] = {};
    Queue queue;
    const Tensor s{.data = const_cast<float*>(scores.data()), .shape = {c.rows(), 1, 1, c.classes}};
    cross_entropy(queue, s,
                  {own.data(), partner.data(), c.images, static_cast<float>(c.share), static_cast<float>(c.smoothing)},
                  0.5, {.data = d.data(), .shape = s.shape}, sums);
    const double wanted = loss({scores.begin(), scores.end()});
    EXPECT_NEAR(sums[0], wanted, 2e-6 * (1 + wanted));
    double hits = 0;
    for (std::int64_t r = 0; r < c.rows(); ++r) {
      const auto row = scores.begin() + r * c.classes;
      hits += std::max_element(row, row + c.classes) - row == own[static_cast<std::size_t>(r % c.images)] ? 1 : 0;
    }
    EXPECT_EQ(sums[1], hits);
    expect_gradient(scores, d, 0.5, loss);
  }
}

TEST(Classify, BinaryCrossEntropyLeavesMaskedEntriesOut) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(std::to_string(c.classes) + " classes");
    const auto scores = test::hash_fill(static_cast<std::size_t>(c.rows() * c.classes), 4, c.scale);
    std::vector<float> targets(static_cast<std::size_t>(c.images * c.classes));
    for (std::size_t i = 0; i < targets.size(); ++i) targets[i] = i % 5 == 1 ? -8 : i % 3 == 0 ? 0.9F : 0.05F;
    const auto target = [&](std::int64_t r, std::int64_t k) {
      return targets[static_cast<std::size_t>(r % c.images * c.classes + k)];
    };
    const auto loss = [&](const std::vector<double>& s) {
      double sum = 0;
      for (std::int64_t r = 0; r < c.rows(); ++r) {
        for (std::int64_t k = 0; k < c.classes; ++k) {
          const double x = s[static_cast<std::size_t>(r * c.classes + k)], t = static_cast<double>(target(r, k));
          if (t >= 0) sum += t * std::log1p(std::exp(-x)) + (1 - t) * (std::log1p(std::exp(-x)) + x);
        }
      }
      return sum;
    };
    std::vector<float> d(scores.size());
    double sums[2] = {};
    Queue queue;
    const Tensor s{.data = const_cast<float*>(scores.data()), .shape = {c.rows(), 1, 1, c.classes}};
    binary_cross_entropy(queue, s, targets.data(), c.images, 0.5, {.data = d.data(), .shape = s.shape}, sums);
    const double wanted = loss({scores.begin(), scores.end()});
    EXPECT_NEAR(sums[0], wanted, 2e-6 * (1 + wanted));
    double hits = 0;
    for (std::int64_t r = 0; r < c.rows(); ++r) {
      const auto row = scores.begin() + r * c.classes;
      hits += target(r, std::max_element(row, row + c.classes) - row) > 0.5F ? 1 : 0;
      for (std::int64_t k = 0; k < c.classes; ++k)
        if (target(r, k) < 0) {
          EXPECT_EQ(d[static_cast<std::size_t>(r * c.classes + k)], 0);
        }
    }
    EXPECT_EQ(sums[1], hits);
    expect_gradient(scores, d, 0.5, loss);
  }
}

#if defined(SEER_KERNELS_CUDA)
TEST(Classify, OnADeviceAsOnTheHost) {
  SEER_NEEDS_DEVICE();
  for (const Case& c : kCases) {
    test::expect_same_on_device(2e-6, [&](test::Workspace& w) {
      const Tensor scores = w.tensor(test::Values({c.rows(), 1, 1, c.classes}, 3, c.scale)),
                   d = w.tensor(test::Values(scores.shape, 4, 1));
      std::vector<std::int32_t> classes;
      for (std::int64_t i = 0; i < 2 * c.images; ++i) classes.push_back(static_cast<std::int32_t>(5 * i % c.classes));
      const auto* const own = w.given(classes);
      auto* const sums = w.room<double>(2);
      cross_entropy(w.queue, scores,
                    {own, own + c.images, c.images, static_cast<float>(c.share), static_cast<float>(c.smoothing)}, 1, d,
                    sums);
      w.keep("sums", sums, 2);
      w.keep("gradient", d);
      auto* const targets = w.given(test::hash_fill(static_cast<std::size_t>(c.images * c.classes), 5, 1));
      binary_cross_entropy(w.queue, scores, targets, c.images, 1, d, sums);
      w.keep("binary sums", sums, 2);
      w.keep("binary gradient", d);
    });
  }
}
#endif

}  // namespace
}  // namespace seer::kernels
