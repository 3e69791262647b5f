// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/swav.hpp"

#include <limits>

#include "kernel_test.hpp"
#include "mirrored_kernels.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_close;
using test::expect_gradient;
using test::Shape;
using test::Values;
using Wide = std::vector<double>;

SEER_ON_ALL_SPACES(Sinkhorn);
SEER_ON_ALL_SPACES(SwavLoss);
SEER_ON_ALL_SPACES(Diagnostics);

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Spec 3.2 on one process, as SwAV does it with reductions between the pieces. `trouble`: 1 where it needed
/// repairs.
Values sinkhorn(test::MirroredQueue& queue, Values scores, float epsilon, int iterations, double* trouble = nullptr) {
  Values q(scores.shape);
  double unused = 0;
  double* const found = trouble != nullptr ? trouble : &unused;
  const std::int64_t k = scores.shape.c, n = scores.shape.rows();
  const double sum =
      sinkhorn_exponentials(queue, scores.tensor(), maximum(queue, scores.tensor()), epsilon, q.tensor());
  sinkhorn_divide(queue, q.tensor(), &sum, found);
  Wide factors(at(k));
  for (int i = 0; i < iterations; ++i) {
    sinkhorn_prototype_sums(queue, q.tensor(), factors.data());
    if (sinkhorn_any_empty(queue, factors.data(), k)) {
      sinkhorn_add(queue, q.tensor(), 1e-12F);
      sinkhorn_prototype_sums(queue, q.tensor(), factors.data());
    }
    sinkhorn_factors(queue, factors.data(), k, found);
    sinkhorn_scale(queue, q.tensor(), factors.data(), i + 1 == iterations ? 1.0 : 1.0 / static_cast<double>(n));
  }
  return q;
}

Values matrix(const test::Golden& golden) {
  Values out({static_cast<std::int64_t>(golden.dims[0]), 1, 1, static_cast<std::int64_t>(golden.dims[1])});
  out.data = golden.f32();
  return out;
}

void expect_codes(const Values& found, const std::vector<double>& wanted, const std::string& what) {
  ASSERT_EQ(found.data.size(), wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(found.data[i], wanted[i], 1e-5) << what << " entry " << i;
}

// Rows far below the others: in float all of such a row would be zero, and its codes NaN; in float64 it is like any
// other.
TEST_P(Sinkhorn, RowsFarBelowTheMaximumKeepTheirCodes) {
  const std::int64_t n = 7, k = 5;
  for (const float epsilon : {0.05F, 0.01F, 0.003F}) {
    Values scores({n, 1, 1, k});
    for (std::int64_t i = 0; i < n * k; ++i) {
      scores.data[at(i)] = static_cast<float>(test::hash_value(5, static_cast<std::uint64_t>(i), 0.02)) +
                           (i < 3 * k ? 0.9F : -0.95F) + (i % 6 == 0 ? 0.03F : 0.0F);
    }
    Wide q(at(n * k));
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] = std::exp((static_cast<double>(scores.data[i]) - 1) / static_cast<double>(epsilon));
    }
    for (int iteration = 0; iteration < 10; ++iteration) {
      for (std::size_t c = 0; c < at(k); ++c) {
        double sum = 0;
        for (std::size_t r = 0; r < at(n); ++r) sum += q[r * at(k) + c];
        for (std::size_t r = 0; r < at(n); ++r) q[r * at(k) + c] /= sum * static_cast<double>(k);
      }
      for (std::size_t r = 0; r < at(n); ++r) {
        double sum = 0;
        for (std::size_t c = 0; c < at(k); ++c) sum += q[r * at(k) + c];
        for (std::size_t c = 0; c < at(k); ++c) q[r * at(k) + c] /= sum;
      }
    }
    expect_codes(sinkhorn(queue, scores, epsilon, 10), q, "epsilon " + std::to_string(epsilon));
  }
}

TEST_P(Sinkhorn, MatchesGolden) {
  const test::GoldenFile file("sinkhorn.h5");
  for (const std::string& name : file.names("/")) {
    const auto epsilon = static_cast<float>(file.attribute(name, "epsilon"));
    const int iterations = static_cast<int>(file.attribute(name, "iterations"));
    Values codes = sinkhorn(queue, matrix(file.read(name + "/scores")), epsilon, iterations);
    expect_codes(codes, file.read(name + "/codes").values, name);
    sinkhorn_harden(queue, codes.tensor());
    expect_codes(codes, file.read(name + "/hard").values, name + " hard");
  }
}

TEST_P(Sinkhorn, TestVectors) {  // method.md 3.5
  Values scores({4, 1, 1, 3});
  scores.data = {0.9F, 0.1F, -0.2F, 0.8F, 0.3F, 0, 0.1F, 0.7F, -0.5F, 0.85F, 0.2F, 0.1F};
  expect_codes(sinkhorn(queue, scores, 0.05F, 3),
               {0.9956465, 2.357e-5, 0.0043300, 0.3617915, 0.0034554, 0.6347531, 2.92e-8, 0.9999973, 2.798e-6,
                0.1733215, 8.241e-5, 0.8265961},
               "epsilon 0.05, 3 iterations");
  expect_codes(sinkhorn(queue, scores, 0.05F, 10),
               {0.9948658, 3.674e-4, 0.0047668, 0.3244669, 0.0483425, 0.6271906, 1.87e-9, 0.9999998, 1.98e-7, 0.1596979,
                0.0011846, 0.8391176},
               "epsilon 0.05, 10 iterations");
  const Values sharp = sinkhorn(queue, scores, 0.03F, 10);
  expect_codes(sharp,
               {0.9999294, 1.11e-7, 7.044e-5, 0.3915355, 9.535e-4, 0.6075110, 4.9e-14, 1.0, 6.0e-11, 0.1085185,
                1.781e-6, 0.8914797},
               "epsilon 0.03, 10 iterations");
  EXPECT_NEAR(static_cast<double>(sharp.data[6]) / 4.9e-14, 1, 0.02) << "small codes keep their relative size";
}

TEST_P(Sinkhorn, RowsSumToOneWithManyPrototypes) {
  const Values codes = sinkhorn(queue, Values({7, 1, 1, 4099}, 3, 1), 0.05F, 10);
  for (std::int64_t r = 0; r < 7; ++r) {
    double sum = 0;
    for (std::int64_t k = 0; k < 4099; ++k) sum += static_cast<double>(codes.data[at(r * 4099 + k)]);
    EXPECT_NEAR(sum, 1, 1e-6);
  }
}

// What only repairs mend is reported: the assignment is then made again with them.
TEST_P(Sinkhorn, TroubleIsReported) {
  double trouble = 0;
  sinkhorn(queue, Values({70, 1, 1, 300}, 3, 0.9), 0.05F, 3, &trouble);
  EXPECT_EQ(trouble, 0);
  Values q({2, 1, 1, 3}, 1, 0.5, 0.5);
  for (const double sum : {2.0, 1e300, HUGE_VAL, std::nan("")}) {
    trouble = 0;
    Values divided = q;
    sinkhorn_divide(queue, divided.tensor(), &sum, &trouble);
    EXPECT_EQ(trouble, sum < HUGE_VAL ? 0 : 1) << sum;
    if (sum == 2.0) {
      EXPECT_EQ(divided.data[4], q.data[4] / 2);
    }
  }
  for (const double sum : {0.5, 0.0}) {
    trouble = 0;
    Wide sums{0.25, sum, 0.125};
    EXPECT_EQ(sinkhorn_any_empty(queue, sums.data(), 3), sum == 0);
    sinkhorn_factors(queue, sums.data(), 3, &trouble);
    EXPECT_EQ(trouble, sum == 0 ? 1 : 0);
  }
  trouble = 1;
  Wide sums{0.25, 0.5, 0.25};
  sinkhorn_factors(queue, sums.data(), 3, &trouble);
  EXPECT_EQ(trouble, 1) << "stays";
}

TEST_P(Sinkhorn, ExponentialsAreAccurateAndRepaired) {
  const Shape s{3, 1, 1, 101};
  Values scores(s, 1, 1), q(s);
  const float most = maximum(queue, scores.tensor());
  EXPECT_EQ(most, *std::max_element(scores.data.begin(), scores.data.end()));
  const double sum = sinkhorn_exponentials(queue, scores.tensor(), most, 0.03F, q.tensor());
  double wanted_sum = 0;
  for (std::size_t i = 0; i < q.data.size(); ++i) {
    const double wanted = std::exp((static_cast<double>(scores.data[i] - most)) / static_cast<double>(0.03F));
    EXPECT_NEAR(static_cast<double>(q.data[i]) / wanted, 1, 3e-7) << i;
    wanted_sum += wanted;
  }
  EXPECT_NEAR(sum, wanted_sum, 1e-6 * wanted_sum);

  Values wild({2, 1, 1, 3}), out({2, 1, 1, 3});
  wild.data = {0, -1, 3000, -4000, 1000, 1};
  double repaired = sinkhorn_exponentials(queue, wild.tensor(), 0, 1, out.tensor());
  EXPECT_EQ(repaired, HUGE_VAL);
  sinkhorn_repair(queue, out.tensor(), &repaired);
  const float e = std::exp(1.0F);
  EXPECT_FLOAT_EQ(out.data[2], e) << "+inf takes the largest finite value";
  EXPECT_FLOAT_EQ(out.data[4], e);
  EXPECT_EQ(out.data[3], 0.0F);
  EXPECT_NEAR(repaired, 1 + std::exp(-1.0) + 3 * std::exp(1.0), 1e-5);
  Values lost({1, 1, 1, 2});
  lost.data = {kInfinity, kInfinity};
  sinkhorn_repair(queue, lost.tensor(), &repaired);
  EXPECT_EQ(lost.data[1], kInfinity) << "nothing finite to take instead";
  EXPECT_EQ(repaired, HUGE_VAL);
}

TEST_P(Sinkhorn, MaximumOfNothing) {
  Values none({0, 1, 1, 5});
  EXPECT_EQ(maximum(queue, none.tensor()), -kInfinity);
}

TEST_P(Sinkhorn, PiecesMatchDouble) {
  for (const Shape s : {Shape{1, 1, 1, 3}, Shape{5, 1, 1, 37}, Shape{70, 1, 1, 3000}}) {
    Values q(s, 2, 0.5, 0.5);
    Wide sums(at(s.c)), wanted(at(s.c));
    for (std::int64_t i = 0; i < s.elems(); ++i) wanted[at(i % s.c)] += static_cast<double>(q.data[at(i)]);
    sinkhorn_prototype_sums(queue, q.tensor(), sums.data());
    expect_close(sums, wanted, 1e-7, "prototype sums");
    Wide factors = sums;
    double trouble = 0;
    sinkhorn_factors(queue, factors.data(), s.c, &trouble);
    Wide scaled(q.wide());
    for (std::int64_t r = 0; r < s.n; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < s.c; ++k) {
        EXPECT_NEAR(factors[at(k)] * static_cast<double>(s.c) * sums[at(k)], 1, 1e-12);
        sum += scaled[at(r * s.c + k)] *= factors[at(k)];
      }
      for (std::int64_t k = 0; k < s.c; ++k) scaled[at(r * s.c + k)] *= 0.25 / sum;
    }
    sinkhorn_scale(queue, q.tensor(), factors.data(), 0.25);
    expect_close(q.data, scaled, 1e-6, "scale");
    for (double& v : scaled) v += 0.125;
    sinkhorn_add(queue, q.tensor(), 0.125F);
    expect_close(q.data, scaled, 1e-6, "add");
  }
}

TEST_P(Sinkhorn, FactorsOfEmptyPrototypes) {
  Wide sums{0.5, 0, 0.125};
  double trouble = 0;
  sinkhorn_factors(queue, sums.data(), 3, &trouble);
  EXPECT_DOUBLE_EQ(sums[0], 1 / 1.5);
  EXPECT_DOUBLE_EQ(sums[2], 1 / 0.375);
  EXPECT_EQ(sums[1], sums[2]) << "inf takes the largest finite factor";
}

TEST_P(Sinkhorn, HardenTakesTheFirstOfEquals) {
  Values q({3, 1, 1, 5});
  q.data = {0.1F, 0.4F, 0.1F, 0.4F, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1e-30F};
  sinkhorn_harden(queue, q.tensor());
  EXPECT_EQ(q.data, (std::vector<float>{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
}

/// The whole loss of method.md 3.3 from the pieces, with the queue's rows below the batch's.
TEST_P(SwavLoss, MatchesGolden) {
  const test::GoldenFile file("swav_loss.h5");
  for (const std::string& name : file.names("/")) {
    Values scores = matrix(file.read(name + "/scores"));
    const auto crops = static_cast<std::int64_t>(file.attribute(name, "crops"));
    const auto temperature = static_cast<float>(file.attribute(name, "temperature"));
    const std::int64_t b = scores.shape.n / crops, k = scores.shape.c;
    const std::size_t part = at(b * k);
    std::vector<Values> codes;
    for (std::size_t a = 0; a < 2; ++a) {
      std::vector<float> rows(scores.data.begin() + static_cast<std::ptrdiff_t>(a * part),
                              scores.data.begin() + static_cast<std::ptrdiff_t>((a + 1) * part));
      if (file.has(name + "/queue")) {
        const auto stored = file.read(name + "/queue").f32();
        const auto half = static_cast<std::ptrdiff_t>(stored.size() / 2), from = static_cast<std::ptrdiff_t>(a) * half;
        rows.insert(rows.end(), stored.begin() + from, stored.begin() + from + half);
      }
      Values all({static_cast<std::int64_t>(rows.size()) / k, 1, 1, k});
      all.data = rows;
      codes.push_back(sinkhorn(queue, all, static_cast<float>(file.attribute(name, "epsilon")),
                               static_cast<int>(file.attribute(name, "iterations"))));
    }
    Values gradient(scores.shape);
    const double weight = 1.0 / static_cast<double>(b * 2 * (crops - 1));
    double loss = 0;
    for (std::int64_t v = 0; v < crops; ++v) {
      Values target({b, 1, 1, k});
      int count = 0;
      for (std::int64_t a = 0; a < 2; ++a) {
        if (a == v) continue;
        ++count;
        for (std::size_t i = 0; i < part; ++i) target.data[i] += codes[at(a)].data[i];
      }
      loss += swav_cross_entropy(queue, scores.tensor().slice(v * b, b), target.tensor(), count, temperature, weight,
                                 gradient.tensor().slice(v * b, b));
    }
    const double wanted = file.read(name + "/loss").values[0];
    EXPECT_NEAR(loss, wanted, 1e-6 * wanted) << name;
    expect_close(gradient.data, file.read(name + "/grad").values, 1e-5, name.c_str());
  }
}

TEST_P(SwavLoss, GradientMatchesFiniteDifference) {
  for (const Shape s : {Shape{1, 1, 1, 5}, Shape{3, 1, 1, 37}}) {
    Values scores(s, 5, 1), codes(s, 6, 0.5, 0.5), gradient(s);
    for (std::int64_t r = 0; r < s.n; ++r) {  // two codes, each summing to 1
      double sum = 0;
      for (std::int64_t k = 0; k < s.c; ++k) sum += static_cast<double>(codes.data[at(r * s.c + k)]);
      for (std::int64_t k = 0; k < s.c; ++k) codes.data[at(r * s.c + k)] *= static_cast<float>(2 / sum);
    }
    auto loss = [&](const Wide& x) {
      double total = 0;
      for (std::int64_t r = 0; r < s.n; ++r) {
        double sum = 0;
        for (std::int64_t k = 0; k < s.c; ++k) sum += std::exp(x[at(r * s.c + k)] / 0.1);
        for (std::int64_t k = 0; k < s.c; ++k) {
          total -= static_cast<double>(codes.data[at(r * s.c + k)]) * (x[at(r * s.c + k)] / 0.1 - std::log(sum));
        }
      }
      return 0.3 * total;
    };
    const double found = swav_cross_entropy(queue, scores.tensor(), codes.tensor(), 2, 0.1F, 0.3, gradient.tensor());
    EXPECT_NEAR(found, loss(scores.wide()), 1e-6 * std::abs(found));
    expect_gradient(loss, scores.wide(), gradient.data, 1e-5, "scores");
  }
}

TEST_P(SwavLoss, LargeScoresDoNotOverflow) {
  Values scores({1, 1, 1, 3}), codes({1, 1, 1, 3}), gradient({1, 1, 1, 3});
  scores.data = {1000, 0, -1000};
  codes.data = {0, 1, 0};
  EXPECT_NEAR(swav_cross_entropy(queue, scores.tensor(), codes.tensor(), 1, 0.1F, 1, gradient.tensor()), 10000, 1e-2);
  EXPECT_NEAR(gradient.data[0], 10, 1e-5);
  EXPECT_NEAR(gradient.data[1], -10, 1e-5);
  EXPECT_EQ(gradient.data[2], 0.0F);
}

TEST_P(Diagnostics, PredictionsAndEntropyMatchDouble) {
  for (const Shape s : {Shape{1, 1, 1, 3}, Shape{9, 1, 1, 131}, Shape{40, 1, 1, 1000}}) {
    Values scores(s, 8, 1);
    Wide predictions(at(s.c), 0.5), wanted(predictions);
    Values soft(s);
    double entropy = 0;
    for (std::int64_t r = 0; r < s.n; ++r) {
      double sum = 0;
      for (std::int64_t k = 0; k < s.c; ++k) sum += std::exp(static_cast<double>(scores.data[at(r * s.c + k)]) / 0.1);
      for (std::int64_t k = 0; k < s.c; ++k) {
        const double p = std::exp(static_cast<double>(scores.data[at(r * s.c + k)]) / 0.1) / sum;
        wanted[at(k)] += p;
        soft.data[at(r * s.c + k)] = static_cast<float>(p);
        entropy -= p * std::log(p);
      }
    }
    add_predictions(queue, scores.tensor(), 0.1F, predictions.data());
    expect_close(predictions, wanted, 1e-6, "predictions");
    EXPECT_NEAR(row_entropies(queue, soft.tensor()), entropy, 1e-6 * (1 + entropy));
  }
  Values hard({2, 1, 1, 4});
  hard.data[1] = hard.data[6] = 1;
  EXPECT_EQ(row_entropies(queue, hard.tensor()), 0.0);
}

}  // namespace
}  // namespace seer::kernels
