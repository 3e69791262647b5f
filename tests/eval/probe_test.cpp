// SPDX-License-Identifier: Apache-2.0
// The grid against one classifier at a time, written out in double precision.
#include "seer/eval/probe.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "seer/base/random.hpp"
#include "support.hpp"

namespace seer::eval {
namespace {

using Values = std::vector<double>;
constexpr std::size_t kRows = 13, kWidth = 7, kClasses = 5;
constexpr double kEpsilon = 1e-5;

/// One classifier: scores = weight (scale x + shift) + bias, where x is the row, or the row normalised by its batch.
struct Naive {
  config::ProbeProtocol protocol;
  ProbeHead head;
  std::vector<Values> parameters;  ///< weight, bias, scale, shift
  std::vector<Values> momentum, second;
  Values mean = Values(kWidth, 0.0), variance = Values(kWidth, 1.0);  ///< running

  Naive(const config::ProbeProtocol& p, const ProbeHead& h, const LinearHead& start) : protocol(p), head(h) {
    parameters = {Values(start.weight.begin(), start.weight.end()), Values(start.bias.begin(), start.bias.end()),
                  Values(kWidth, 1.0), Values(kWidth, 0.0)};
    if (h.batchnorm)  // the start is that of normalised rows
      for (auto& value : parameters[0]) value *= std::sqrt(1 + kEpsilon);
    for (const auto& of : parameters) momentum.emplace_back(of.size(), 0.0);
    second = momentum;
  }

  Values normalised(const Values& x, bool learns) {
    if (!head.batchnorm) return x;
    Values out = x;
    for (std::size_t j = 0; j < kWidth; ++j) {
      double m = 0, square = 0;
      const double n = static_cast<double>(x.size() / kWidth);
      for (std::size_t i = j; i < x.size(); i += kWidth) m += x[i] / n;
      for (std::size_t i = j; i < x.size(); i += kWidth) square += std::pow(x[i] - m, 2);
      if (learns) {
        mean[j] = 0.9 * mean[j] + 0.1 * m;
        variance[j] = 0.9 * variance[j] + 0.1 * square / (n - 1);
      }
      for (std::size_t i = j; i < x.size(); i += kWidth) out[i] = (x[i] - m) / std::sqrt(square / n + kEpsilon);
    }
    return out;
  }

  /// Of rows that are already normalised.
  Values scores(const Values& x) const {
    Values out;
    for (std::size_t i = 0; i < x.size() / kWidth; ++i) {
      for (std::size_t c = 0; c < kClasses; ++c) {
        double sum = parameters[1][c];
        for (std::size_t j = 0; j < kWidth; ++j)
          sum += parameters[0][c * kWidth + j] * (parameters[2][j] * x[i * kWidth + j] + parameters[3][j]);
        out.push_back(sum);
      }
    }
    return out;
  }

  double loss(const Values& x, const ProbeTruth& truth) const {
    const auto s = scores(x);
    double out = 0;
    for (std::size_t i = 0; truth.several.empty() && i < truth.labels.size(); ++i) {
      double sum = 0;
      for (std::size_t c = 0; c < kClasses; ++c) sum += std::exp(s[i * kClasses + c]);
      out += (std::log(sum) - s[i * kClasses + static_cast<std::size_t>(truth.labels[i])]) /
             static_cast<double>(truth.labels.size());
    }
    for (std::size_t c = 0; c < kClasses && !truth.several.empty(); ++c) {
      double sum = 0, valid = 0;
      for (std::size_t i = c; i < s.size(); i += kClasses) {
        if (truth.several[i] < 0) continue;
        const double p = 1 / (1 + std::exp(-s[i]));
        sum -= truth.several[i] == 1 ? std::log(p) : std::log(1 - p);
        ++valid;
      }
      if (valid > 0) out += sum / valid;
    }
    return out;
  }

  /// By finite differences of every parameter.
  double update(const Values& rows, const ProbeTruth& truth, double factor, std::int64_t t) {
    const auto x = normalised(rows, true);
    const double before = loss(x, truth);
    auto gradients = parameters;
    for (std::size_t part = 0; part < parameters.size(); ++part) {
      for (std::size_t k = 0; k < parameters[part].size(); ++k) {
        constexpr double kStep = 1e-6;
        const double value = parameters[part][k];
        parameters[part][k] = value + kStep;
        const double above = loss(x, truth);
        parameters[part][k] = value - kStep;
        gradients[part][k] = (above - loss(x, truth)) / (2 * kStep);
        parameters[part][k] = value;
      }
    }
    const double rate = head.rate * factor * (protocol.rate_per_256 ? static_cast<double>(protocol.batch) / 256 : 1);
    for (std::size_t part = 0; part < (head.batchnorm ? 4U : 2U); ++part) {
      const double decay = part == 0 || (part == 1 && protocol.bias_decays) ? head.decay : 0;
      for (std::size_t k = 0; k < parameters[part].size(); ++k) {
        double &p = parameters[part][k], &m = momentum[part][k], &v = second[part][k], g = gradients[part][k];
        if (protocol.optimizer == "adamw") {
          const double n = static_cast<double>(t + 1);
          m = protocol.momentum * m + (1 - protocol.momentum) * g;
          v = protocol.second * v + (1 - protocol.second) * g * g;
          p -= rate * decay * p;
          p -= rate * m / (1 - std::pow(protocol.momentum, n)) /
               (std::sqrt(v / (1 - std::pow(protocol.second, n))) + 1e-8);
        } else {
          g += decay * p;
          m = protocol.momentum * m + g;
          p -= rate * (protocol.optimizer == "nesterov" ? g + protocol.momentum * m : m);
        }
      }
    }
    return before;
  }

  Values tested(const Values& rows) const {
    Values x = rows;
    for (std::size_t i = 0; i < x.size() && head.batchnorm; ++i)
      x[i] = (x[i] - mean[i % kWidth]) / std::sqrt(variance[i % kWidth] + kEpsilon);
    return scores(x);
  }
};

ProbeTruth truth_of_batch(bool several, std::uint64_t seed) {
  ProbeTruth out;
  Random random(seed, Purpose::test);
  for (std::size_t i = 0; i < kRows; ++i) out.labels.push_back(static_cast<std::int32_t>(random.below(kClasses)));
  if (!several) return out;
  out.labels.clear();
  for (std::size_t i = 0; i < kRows * kClasses; ++i)
    out.several.push_back(static_cast<std::int8_t>(static_cast<int>(random.below(3)) - 1));
  for (std::size_t i = 2; i < kRows * kClasses; i += kClasses) out.several[i] = -1;  // a class that is left out
  return out;
}

std::vector<FeatureColumns> columns() {
  return {{.feature = "other", .begin = 0, .width = 3, .map = {}},
          {.feature = "tested", .begin = 3, .width = kWidth, .map = {}}};
}

TEST(Probe, EachHeadOfAGridIsAClassifierTrainedAlone) {
  for (const char* optimizer : {"sgd", "nesterov", "adamw"}) {
    for (const bool several : {false, true}) {
      config::ProbeProtocol protocol{
          .name = "", .about = "", .features = "", .optimizer = optimizer, .rates = {0.5, 2.0}, .decays = {0.0, 0.03}};
      protocol.bias_decays = !several;
      protocol.batchnorm = {0, 1};
      protocol.batch = 64;
      protocol.init_deviation = 0.3;
      const auto heads = probe_heads(protocol, columns());
      ASSERT_EQ(heads.size(), 16U);
      ProbeTrainer grid(protocol, heads, 0, heads.size(), columns(), kClasses, 4);
      std::vector<Naive> naive;
      for (std::size_t h = 8; h < heads.size(); ++h) naive.emplace_back(protocol, heads[h], grid.head(h));
      const auto part = [](const std::vector<float>& values) {
        Values out;
        for (std::size_t i = 0; i < values.size(); ++i)
          if (i % (kWidth + 3) >= 3) out.push_back(static_cast<double>(values[i]));
        return out;
      };
      for (std::int64_t t = 0; t < 6; ++t) {
        const auto values = test::hash_fill(kRows * (kWidth + 3), static_cast<std::uint64_t>(t + 1), 2.0);
        const auto truth = truth_of_batch(several, static_cast<std::uint64_t>(t));
        const double factor = 1.0 / static_cast<double>(t + 1);
        const auto losses = grid.update(values, truth, t, factor);
        for (std::size_t k = 0; k < naive.size(); ++k)
          EXPECT_NEAR(losses[k + 8], naive[k].update(part(values), truth, factor, t), 2e-5)
              << optimizer << several << " head " << k << " update " << t;
      }
      const auto tests = test::hash_fill(3 * (kWidth + 3), 99, 2.0);
      std::vector<std::size_t> all(heads.size());
      for (std::size_t h = 0; h < all.size(); ++h) all[h] = h;
      std::size_t seen = 0;
      grid.scores(tests, all, [&](std::size_t h, std::span<const float> scores) {
        ++seen;
        if (h < 8) return;
        const auto expected = naive[h - 8].tested(part(tests));
        EXPECT_LT(test::relative_error(std::vector<float>(scores.begin(), scores.end()), expected), 3e-5)
            << optimizer << several << " head " << h;
        const auto linear = grid.head(h);  // the same as one linear function of the features
        for (std::size_t i = 0; i < scores.size(); ++i) {
          double sum = static_cast<double>(linear.bias[i % kClasses]);
          for (std::size_t j = 0; j < kWidth; ++j)
            sum +=
                static_cast<double>(linear.weight[i % kClasses * kWidth + j]) * part(tests)[i / kClasses * kWidth + j];
          EXPECT_NEAR(sum, expected[i], 1e-4);
        }
      });
      EXPECT_EQ(seen, heads.size());
    }
  }
}

TEST(Probe, HeadsThatDivergeLeaveOthersAlone) {
  config::ProbeProtocol protocol{.name = "", .about = "", .features = "", .rates = {0.1, 3e38}};
  const auto heads = probe_heads(protocol, columns());
  ProbeTrainer both(protocol, heads, 0, heads.size(), columns(), kClasses, 1);
  protocol.rates = {0.1};
  const auto one = probe_heads(protocol, columns());
  ProbeTrainer alone(protocol, one, 0, one.size(), columns(), kClasses, 1);
  std::vector<double> losses;
  for (std::int64_t t = 0; t < 4; ++t) {
    const auto values = test::hash_fill(kRows * (kWidth + 3), static_cast<std::uint64_t>(t), 100.0);
    losses = both.update(values, truth_of_batch(false, 1), t, 1);
    alone.update(values, truth_of_batch(false, 1), t, 1);
  }
  EXPECT_FALSE(std::isfinite(losses[3]));
  EXPECT_LT(test::relative_error(both.head(2).weight, alone.head(1).weight), 1e-6);
}

TEST(Probe, RanksShareHeadsByWidth) {
  config::ProbeProtocol protocol{.name = "", .about = "", .features = "", .rates = {1, 2, 3}};
  const auto heads = probe_heads(protocol, columns());
  for (const int ranks : {1, 2, 4, 9}) {
    EXPECT_EQ(first_head(heads, 0, ranks), 0U);
    EXPECT_EQ(first_head(heads, ranks, ranks), heads.size());
    for (int r = 0; r < ranks; ++r) EXPECT_LE(first_head(heads, r, ranks), first_head(heads, r + 1, ranks));
  }
  EXPECT_EQ(first_head(heads, 1, 2), 4U);  // 3 of 3 values and one of 7, and two of 7
}

TEST(ProbeProtocol, RatesFollowTheSchedule) {
  auto protocol = config::probe_protocol("vissl");
  EXPECT_EQ(config::rate_factor(protocol, 79, 280), 1);
  EXPECT_NEAR(config::rate_factor(protocol, 80, 280), 0.1, 1e-12);
  EXPECT_NEAR(config::rate_factor(protocol, 279, 280), 1e-3, 1e-12);
  protocol = config::probe_protocol("capi");
  EXPECT_NEAR(config::rate_factor(protocol, 0, 12500), 1.0 / 1250, 1e-12);
  EXPECT_NEAR(config::rate_factor(protocol, 1250, 12500), 1, 1e-12);
  EXPECT_NEAR(config::rate_factor(protocol, 6875, 12500), 0.5, 1e-12);
  EXPECT_THROW(config::probe_protocol("disl"), Error);
}

}  // namespace
}  // namespace seer::eval
