// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/batchnorm.hpp"

#include <malloc.h>

#include <tuple>

#include "kernel_test.hpp"
#include "mirrored_kernels.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_close;
using test::expect_gradient;
using test::Shape;
using test::Space;
using test::Values;
using Wide = std::vector<double>;

constexpr double kEps = 1e-5;

SEER_ON_ALL_SPACES(BatchNormCases);

double relu_of(double v) {
  return v > 0 ? v : 0;
}

/// The normalisation in double with the batch's own statistics.
struct Reference {
  Shape shape;
  Wide mean, variance, normal;  // per channel, per channel, per element

  Reference(Shape s, const Wide& x, const Wide& gamma, const Wide& beta)
      : shape(s), mean(at(s.c)), variance(at(s.c)), normal(x.size()) {
    const std::int64_t rows = s.rows(), c = s.c;
    for (std::int64_t i = 0; i < rows * c; ++i) mean[at(i % c)] += x[at(i)] / static_cast<double>(rows);
    for (std::int64_t i = 0; i < rows * c; ++i) {
      const double d = x[at(i)] - mean[at(i % c)];
      variance[at(i % c)] += d * d / static_cast<double>(rows);
    }
    for (std::int64_t i = 0; i < rows * c; ++i) {
      const std::size_t k = at(i % c);
      normal[at(i)] = (x[at(i)] - mean[k]) / std::sqrt(variance[k] + kEps) * gamma[k] + beta[k];
    }
  }
  std::size_t image_channel(std::int64_t i) const {
    return at(i / (shape.h * shape.w * shape.c) * shape.c + i % shape.c);
  }
};

/// One normalisation with everything the kernels need, run through the forward statistics.
struct Case {
  Shape shape;
  Values x, gamma, beta;
  std::vector<float> mean, inv_std;
  Wide sums;
  test::MirroredQueue queue;

  explicit Case(Space space, Shape s, std::uint64_t seed = 1, double scale = 2, double offset = 0.3)
      : shape(s),
        x(s, seed, scale, offset),
        gamma({1, 1, 1, s.c}, seed + 1, 0.5, 1),
        beta({1, 1, 1, s.c}, seed + 2, 0.4),
        mean(at(s.c)),
        inv_std(at(s.c)),
        sums(at(2 * s.c + 1)),
        queue(space) {
    batchnorm_sums(queue, x.tensor(), sums.data());
    batchnorm_statistics(queue, s.c, sums.data(), static_cast<float>(kEps), mean.data(), inv_std.data());
  }
  BatchNorm bn() const { return {mean.data(), inv_std.data(), gamma.data.data(), beta.data.data()}; }
  Reference reference() const { return {shape, x.wide(), gamma.wide(), beta.wide()}; }
  Reference reference(const Wide& other_x) const { return {shape, other_x, gamma.wide(), beta.wide()}; }
};

class BatchNormShapes : public testing::TestWithParam<std::tuple<Space, Shape>> {
 protected:
  void SetUp() override { SEER_NEEDS_SPACE(space); }
  const Space space = std::get<0>(GetParam());
  const Shape shape = std::get<1>(GetParam());
};

// Odd sizes, batch of one, one row, channels below and above a vector, remainders of every kind, and two tensors that
// are large enough to be streamed past the caches.
INSTANTIATE_TEST_SUITE_P(Shapes, BatchNormShapes,
                         testing::Combine(test::kSpaces,
                                          testing::Values(Shape{1, 1, 1, 5}, Shape{1, 7, 7, 13}, Shape{2, 5, 3, 8},
                                                          Shape{3, 4, 5, 24}, Shape{5, 1, 1, 17}, Shape{2, 3, 3, 373},
                                                          Shape{4, 33, 31, 7}, Shape{1, 40, 40, 32},
                                                          Shape{2, 9, 9, 104}, Shape{3, 2, 1, 2100},
                                                          Shape{2, 112, 112, 176}, Shape{1, 45, 47, 2100})),
                         [](const auto& each) {
                           const Shape s = std::get<1>(each.param);
                           return test::name_of(std::get<0>(each.param)) + "_" + std::to_string(s.n) + "x" +
                                  std::to_string(s.h) + "x" + std::to_string(s.w) + "x" + std::to_string(s.c);
                         });

TEST_P(BatchNormShapes, StatisticsMatchDouble) {
  Case t(space, shape);
  const Reference wanted = t.reference();
  EXPECT_EQ(t.sums[0], static_cast<double>(t.shape.rows()));
  Wide inv_std(wanted.variance);
  for (double& v : inv_std) v = 1 / std::sqrt(v + kEps);
  expect_close(t.mean, wanted.mean, 1e-6, "mean");
  expect_close(t.inv_std, inv_std, 2e-6, "inv_std");

  std::vector<float> running_mean(at(t.shape.c), 0.5F), running_var(at(t.shape.c), 2.0F);
  batchnorm_statistics(t.queue, t.shape.c, t.sums.data(), static_cast<float>(kEps), t.mean.data(), t.inv_std.data(),
                       0.1F, running_mean.data(), running_var.data());
  const double rows = static_cast<double>(t.shape.rows()), unbiased = rows > 1 ? rows / (rows - 1) : 1;
  Wide wanted_mean(wanted.mean), wanted_var(wanted.variance);
  for (double& v : wanted_mean) v = 0.9 * 0.5 + 0.1 * v;
  for (double& v : wanted_var) v = 0.9 * 2 + 0.1 * v * unbiased;
  expect_close(running_mean, wanted_mean, 1e-6, "running mean");
  expect_close(running_var, wanted_var, 1e-6, "running variance");
}

TEST_P(BatchNormShapes, ForwardMatchesDouble) {
  Case t(space, shape);
  const Reference wanted = t.reference();
  const Shape s = t.shape, per_image{s.n, 1, 1, s.c};
  const double pixels = static_cast<double>(s.h * s.w);
  Values y(s), pooled(per_image), gate(per_image, 7, 0.5, 0.5), shortcut(s, 8, 1);
  const Case second(space, s, 20);
  const Reference wanted_second = second.reference();

  Wide plain(wanted.normal), rectified(plain), gated(plain), added(plain), added_normal(plain),
      mean(pooled.data.size());
  for (std::int64_t i = 0; i < s.elems(); ++i) {
    const double v = plain[at(i)];
    const std::size_t k = wanted.image_channel(i);
    rectified[at(i)] = relu_of(v);
    mean[k] += relu_of(v) / pixels;
    gated[at(i)] = relu_of(v) * static_cast<double>(gate.data[k]);
    added[at(i)] = relu_of(v + static_cast<double>(shortcut.data[at(i)]));
    added_normal[at(i)] = relu_of(v + wanted_second.normal[at(i)]);
  }
  batchnorm_apply(t.queue, t.x.tensor(), t.bn(), Relu::no, y.tensor());
  expect_close(y.data, plain, 2e-6, "apply");
  batchnorm_apply(t.queue, t.x.tensor(), t.bn(), Relu::yes, y.tensor());
  expect_close(y.data, rectified, 2e-6, "apply with ReLU");
  batchnorm_relu_pool(t.queue, t.x.tensor(), t.bn(), pooled.tensor(), std::vector<float>(2 * mean.size()).data());
  expect_close(pooled.data, mean, 2e-6, "pool");
  batchnorm_relu_gate(t.queue, t.x.tensor(), t.bn(), gate.tensor(), y.tensor());
  expect_close(y.data, gated, 2e-6, "gate");
  batchnorm_add_relu(t.queue, t.x.tensor(), t.bn(), shortcut.tensor(), nullptr, y.tensor());
  expect_close(y.data, added, 2e-6, "residual sum");
  const BatchNorm shortcut_bn = second.bn();
  Values second_x = second.x;
  batchnorm_add_relu(t.queue, t.x.tensor(), t.bn(), second_x.tensor(), &shortcut_bn, y.tensor());
  expect_close(y.data, added_normal, 2e-6, "residual sum, normalised shortcut");
  batchnorm_apply(t.queue, t.x.tensor(), t.bn(), Relu::yes, t.x.tensor());
  expect_close(t.x.data, rectified, 2e-6, "in place");
}

/// d_x and the sums in double from the gradient g that reaches bn(x).
void check_backward(Case& t, const BatchNormGradient& g, const Wide& reaching, const char* what) {
  const Reference r = t.reference();
  const std::int64_t c = t.shape.c;
  const double rows = static_cast<double>(t.shape.rows());
  Wide sums(at(2 * c)), found_sums(at(2 * c)), d_x(reaching.size()), magnitude(at(2 * c));
  for (std::int64_t i = 0; i < t.shape.elems(); ++i) {
    const std::size_t k = at(i % c);
    const double centred = static_cast<double>(t.x.data[at(i)]) - r.mean[k];
    sums[k] += reaching[at(i)];
    sums[k + at(c)] += reaching[at(i)] * centred;
    magnitude[k] += std::abs(reaching[at(i)]);
    magnitude[k + at(c)] += std::abs(reaching[at(i)] * centred);
  }
  for (std::int64_t i = 0; i < t.shape.elems(); ++i) {
    const std::size_t k = at(i % c);
    const double variance = r.variance[k] + kEps, centred = static_cast<double>(t.x.data[at(i)]) - r.mean[k];
    d_x[at(i)] = static_cast<double>(t.gamma.data[k]) / std::sqrt(variance) *
                 (reaching[at(i)] - sums[k] / rows - centred / variance * sums[k + at(c)] / rows);
  }
  batchnorm_backward_sums(t.queue, t.x.tensor(), t.bn(), g, found_sums.data());
  for (std::size_t k = 0; k < sums.size(); ++k) {
    EXPECT_NEAR(found_sums[k], sums[k], 2e-6 * magnitude[k] + 1e-12) << what << " sums, entry " << k;
  }
  Values found(t.shape);
  batchnorm_backward_apply(t.queue, t.x.tensor(), t.bn(), g, found_sums.data(), rows, found.tensor());
  double size = 0;  // of the terms that cancel: with one row d_x is zero
  for (const double v : reaching) size += v * v;
  double difference = 0;
  for (std::size_t i = 0; i < d_x.size(); ++i) {
    const double scale = static_cast<double>(t.gamma.data[i % at(c)]) / std::sqrt(r.variance[i % at(c)] + kEps);
    const double d = (static_cast<double>(found.data[i]) - d_x[i]) / scale;
    difference += d * d;
  }
  EXPECT_LE(std::sqrt(difference), 5e-6 * std::sqrt(size)) << what;

  Values in_place(t.shape);
  in_place.data.assign(g.d_y.f32(), g.d_y.f32() + t.shape.elems());
  BatchNormGradient over = g;
  over.d_y = in_place.tensor();
  batchnorm_backward_apply(t.queue, t.x.tensor(), t.bn(), over, found_sums.data(), rows, in_place.tensor());
  EXPECT_EQ(in_place.data, found.data) << what << ": d_x over d_y";

  std::vector<float> d_gamma(at(c), 0.25F), d_beta(at(c), -0.5F);
  batchnorm_parameter_gradients(t.queue, c, found_sums.data(), t.inv_std.data(), d_gamma.data(), d_beta.data());
  for (std::size_t k = 0; k < at(c); ++k) {
    EXPECT_NEAR(d_beta[k], -0.5 + sums[k], 3e-6 * (1 + magnitude[k])) << what;
    const double inv_std = 1 / std::sqrt(r.variance[k] + kEps);
    EXPECT_NEAR(d_gamma[k], 0.25 + sums[k + at(c)] * inv_std, 3e-6 * (1 + magnitude[k + at(c)] * inv_std)) << what;
  }
}

TEST_P(BatchNormShapes, BackwardMatchesDouble) {
  Case t(space, shape);
  const Shape s = t.shape, per_image{s.n, 1, 1, s.c};
  const double pixels = static_cast<double>(s.h * s.w);
  Values d_y(s, 31, 1), gate(per_image, 32, 0.5, 0.5), d_pooled(per_image, 33, 3), d_gate(per_image), y(s);
  // The mask of the float forward pass: an element within rounding of zero may lie on either side.
  batchnorm_apply(t.queue, t.x.tensor(), t.bn(), Relu::no, y.tensor());
  const Reference r = t.reference();
  Wide plain(d_y.wide()), masked(plain), gated(plain), wanted_gate(gate.data.size());
  for (std::int64_t i = 0; i < s.elems(); ++i) {
    const double open = y.data[at(i)] > 0 ? 1 : 0;
    const std::size_t k = r.image_channel(i);
    masked[at(i)] *= open;
    gated[at(i)] =
        (gated[at(i)] * static_cast<double>(gate.data[k]) + static_cast<double>(d_pooled.data[k]) / pixels) * open;
    wanted_gate[k] += plain[at(i)] * relu_of(r.normal[at(i)]);
  }
  check_backward(t, {.d_y = d_y.tensor()}, plain, "plain");
  check_backward(t, {.d_y = d_y.tensor(), .relu = Relu::yes}, masked, "relu");
  std::vector<float> open(2 * gate.data.size()), d_open(open);
  batchnorm_relu_pool(t.queue, t.x.tensor(), t.bn(), d_gate.tensor(), open.data());
  gate_backward(t.queue, t.x.tensor(), t.bn(), d_y.tensor(), d_gate.tensor(), d_open.data());
  expect_close(d_gate.data, wanted_gate, 1e-5, "d_gate");
  check_backward(t, {d_y.tensor(), Relu::yes, gate.data.data(), d_pooled.data.data(), open.data(), d_open.data()},
                 gated, "gate");
}

TEST_P(BatchNormShapes, AddReluBackwardSumsMatchSeparateCalls) {
  const Shape s = shape;
  Case t(space, s), second(space, s, 40);
  const BatchNorm shortcut_bn = second.bn();
  Values out(s), d_out(s, 50, 1);
  batchnorm_add_relu(t.queue, t.x.tensor(), t.bn(), second.x.tensor(), &shortcut_bn, out.tensor());
  Values masked = d_out;
  relu_backward(t.queue, out.tensor(), masked.tensor());
  for (std::size_t i = 0; i < masked.data.size(); ++i) {
    ASSERT_EQ(masked.data[i], out.data[i] > 0 ? d_out.data[i] : 0.0F) << i;
  }
  const std::size_t count = at(2 * s.c);
  Wide wanted(count), wanted_second(count), sums(count), second_sums(count);
  batchnorm_backward_sums(t.queue, t.x.tensor(), t.bn(), {.d_y = masked.tensor()}, wanted.data());
  batchnorm_backward_sums(t.queue, second.x.tensor(), shortcut_bn, {.d_y = masked.tensor()}, wanted_second.data());
  Values fused = d_out;
  const Tensor shortcut = second.x.tensor();
  add_relu_backward_sums(t.queue, out.tensor(), fused.tensor(), t.x.tensor(), t.bn(), sums.data(), &shortcut,
                         &shortcut_bn, second_sums.data());
  EXPECT_EQ(fused.data, masked.data);
  expect_close(sums, wanted, 1e-5, "sums");
  expect_close(second_sums, wanted_second, 1e-5, "shortcut sums");
  fused = d_out;
  add_relu_backward_sums(t.queue, out.tensor(), fused.tensor(), t.x.tensor(), t.bn(), sums.data(), nullptr, nullptr,
                         nullptr);
  EXPECT_EQ(fused.data, masked.data);
  expect_close(sums, wanted, 1e-5, "sums, identity shortcut");
}

TEST_P(BatchNormCases, GradientWithGateMatchesFiniteDifference) {
  // The whole of a squeeze-excitation stage: y = relu(bn(x)) * gate, gate = sigmoid(a * mean(relu(bn(x))) + b).
  const Shape s{3, 4, 5, 11}, per_image{3, 1, 1, 11};
  Case t(GetParam(), s);
  const Values a(per_image, 61, 2), b(per_image, 62, 1), weight(s, 63, 1);
  const double pixels = static_cast<double>(s.h * s.w);
  auto gate_of = [&](const Reference& r) {
    Wide gate(a.data.size());
    for (std::int64_t i = 0; i < s.elems(); ++i) gate[r.image_channel(i)] += relu_of(r.normal[at(i)]) / pixels;
    for (std::size_t k = 0; k < gate.size(); ++k) {
      gate[k] = 1 / (1 + std::exp(-(static_cast<double>(a.data[k]) * gate[k] + static_cast<double>(b.data[k]))));
    }
    return gate;
  };
  auto loss = [&](const Wide& x) {
    const Reference r = t.reference(x);
    const Wide gate = gate_of(r);
    double sum = 0;
    for (std::int64_t i = 0; i < s.elems(); ++i) {
      sum += static_cast<double>(weight.data[at(i)]) * relu_of(r.normal[at(i)]) * gate[r.image_channel(i)];
    }
    return sum;
  };
  const Wide exact_gate = gate_of(t.reference());
  Values gate(per_image), d_gate(per_image), d_pooled(per_image), d_x(s), d_y = weight;
  std::vector<float> open(2 * gate.data.size()), d_open(open);
  batchnorm_relu_pool(t.queue, t.x.tensor(), t.bn(), gate.tensor(), open.data());
  gate.data.assign(exact_gate.begin(), exact_gate.end());
  gate_backward(t.queue, t.x.tensor(), t.bn(), d_y.tensor(), d_gate.tensor(), d_open.data());
  for (std::size_t k = 0; k < gate.data.size(); ++k) {
    d_pooled.data[k] = d_gate.data[k] * gate.data[k] * (1 - gate.data[k]) * a.data[k];
  }
  const BatchNormGradient g{d_y.tensor(),         Relu::yes,   gate.data.data(),
                            d_pooled.data.data(), open.data(), d_open.data()};
  Wide sums(at(2 * s.c));
  batchnorm_backward_sums(t.queue, t.x.tensor(), t.bn(), g, sums.data());
  batchnorm_backward_apply(t.queue, t.x.tensor(), t.bn(), g, sums.data(), static_cast<double>(s.rows()), d_x.tensor());
  expect_gradient(loss, t.x.wide(), d_x.data, 1e-5, "gate");
}

TEST_P(BatchNormCases, GradientMatchesFiniteDifference) {
  const Shape s{2, 5, 3, 13};
  for (const Relu relu : {Relu::no, Relu::yes}) {
    Case t(GetParam(), s, 70);
    Values d_y(s, 71, 1), d_x(s);
    auto loss = [&](const Wide& x) {
      const Reference r = t.reference(x);
      double sum = 0;
      for (std::size_t i = 0; i < x.size(); ++i) {
        sum += static_cast<double>(d_y.data[i]) * (relu == Relu::yes ? relu_of(r.normal[i]) : r.normal[i]);
      }
      return sum;
    };
    Wide sums(at(2 * s.c));
    const BatchNormGradient g{.d_y = d_y.tensor(), .relu = relu};
    batchnorm_backward_sums(t.queue, t.x.tensor(), t.bn(), g, sums.data());
    batchnorm_backward_apply(t.queue, t.x.tensor(), t.bn(), g, sums.data(), static_cast<double>(s.rows()),
                             d_x.tensor());
    expect_gradient(loss, t.x.wide(), d_x.data, 1e-5, relu == Relu::yes ? "relu" : "plain");
  }
}

TEST_P(BatchNormCases, ResidualGradientMatchesFiniteDifference) {
  const Shape s{2, 3, 5, 9};
  Case t(GetParam(), s, 80), second(GetParam(), s, 90);
  const BatchNorm shortcut_bn = second.bn();
  Values out(s), weight(s, 95, 1), d_out = weight, d_x(s), d_shortcut(s);
  auto loss_of = [&](const Wide& x, const Wide& shortcut) {
    const Reference r = t.reference(x), q = second.reference(shortcut);
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum += static_cast<double>(weight.data[i]) * relu_of(r.normal[i] + q.normal[i]);
    }
    return sum;
  };
  batchnorm_add_relu(t.queue, t.x.tensor(), t.bn(), second.x.tensor(), &shortcut_bn, out.tensor());
  Wide sums(at(2 * s.c)), shortcut_sums(at(2 * s.c));
  const Tensor shortcut = second.x.tensor();
  const double rows = static_cast<double>(s.rows());
  add_relu_backward_sums(t.queue, out.tensor(), d_out.tensor(), t.x.tensor(), t.bn(), sums.data(), &shortcut,
                         &shortcut_bn, shortcut_sums.data());
  batchnorm_backward_apply(t.queue, t.x.tensor(), t.bn(), {.d_y = d_out.tensor()}, sums.data(), rows, d_x.tensor());
  batchnorm_backward_apply(t.queue, shortcut, shortcut_bn, {.d_y = d_out.tensor()}, shortcut_sums.data(), rows,
                           d_shortcut.tensor());
  expect_gradient([&](const Wide& x) { return loss_of(x, second.x.wide()); }, t.x.wide(), d_x.data, 1e-5, "x");
  expect_gradient([&](const Wide& q) { return loss_of(t.x.wide(), q); }, second.x.wide(), d_shortcut.data, 1e-5,
                  "shortcut");
}

TEST_P(BatchNormCases, LargeMeanKeepsTheDeviation) {
  // Uniform in 1000 +- sqrt(3): mean 1000, deviation 1.
  const Shape s{4, 32, 32, 24};
  Case t(GetParam(), s, 100, std::sqrt(3.0), 1000);
  const Reference wanted = t.reference();
  for (std::size_t k = 0; k < t.mean.size(); ++k) {
    const double inv_std = 1 / std::sqrt(wanted.variance[k] + kEps);
    EXPECT_NEAR(t.inv_std[k], inv_std, 1e-6 * inv_std) << "channel " << k;
    EXPECT_NEAR(t.inv_std[k], 1.0, 0.1) << "the case itself";
  }
}

TEST_P(BatchNormCases, ConstantChannelHasNoVariance) {
  const Shape s{2, 3, 3, 4};
  Values x(s);
  std::fill(x.data.begin(), x.data.end(), 12345.678F);
  Wide sums(9);
  std::vector<float> mean(4), inv_std(4);
  batchnorm_sums(queue, x.tensor(), sums.data());
  batchnorm_statistics(queue, 4, sums.data(), static_cast<float>(kEps), mean.data(), inv_std.data());
  for (std::size_t k = 0; k < 4; ++k) {
    EXPECT_FLOAT_EQ(mean[k], 12345.678F);
    EXPECT_NEAR(inv_std[k], 1 / std::sqrt(kEps), 0.05);
  }
}

TEST_P(BatchNormCases, SumsOfPartsAddUp) {
  // Two ranks' shares give the statistics of the whole.
  const Shape s{4, 3, 3, 10};
  Case whole(GetParam(), s);
  Wide first(21), second(21), mean_sums(21);
  batchnorm_sums(whole.queue, whole.x.tensor().slice(0, 1), first.data());
  batchnorm_sums(whole.queue, whole.x.tensor().slice(1, 3), second.data());
  for (std::size_t i = 0; i < 21; ++i) mean_sums[i] = first[i] + second[i];
  expect_close(mean_sums, whole.sums, 1e-6, "sums");
  Wide none(21, 1);
  batchnorm_sums(whole.queue, whole.x.tensor().slice(0, 0), none.data());
  for (const double v : none) EXPECT_EQ(v, 0.0) << "no rows";
}

TEST_P(BatchNormCases, EvaluationUsesTheRunningStatistics) {
  const std::vector<float> running_mean{0.5F, -2}, running_var{4, 0.25F};
  std::vector<float> mean(2), inv_std(2);
  batchnorm_from_running(queue, 2, running_mean.data(), running_var.data(), static_cast<float>(kEps), mean.data(),
                         inv_std.data());
  EXPECT_EQ(mean, running_mean);
  EXPECT_NEAR(inv_std[0], 1 / std::sqrt(4 + kEps), 1e-7);
  EXPECT_NEAR(inv_std[1], 1 / std::sqrt(0.25 + kEps), 1e-6);
}

TEST_P(BatchNormCases, NonFiniteValuesPassTheRelu) {
  Case t(GetParam(), {1, 2, 2, 3});
  t.x.data[4] = std::nanf("");
  Values y(t.shape);
  batchnorm_apply(t.queue, t.x.tensor(), t.bn(), Relu::yes, y.tensor());
  EXPECT_TRUE(std::isnan(y.data[4]));
}

TEST(BatchNorm, ScratchMemoryIsKeptBetweenCalls) {
  Case t(Space::host, {3, 17, 19, 29});
  Values d_y(t.shape, 5, 1), pooled({3, 1, 1, 29}, 6, 1);
  const BatchNormGradient g{.d_y = d_y.tensor(), .relu = Relu::yes};
  Wide sums(58);
  const auto step = [&] {
    batchnorm_backward_sums(t.queue, t.x.tensor(), t.bn(), g, sums.data());
    batchnorm_relu_gate(t.queue, t.x.tensor(), t.bn(), pooled.tensor(), d_y.tensor());
  };
  step();
  const std::size_t held = mallinfo2().uordblks;
  for (int i = 0; i < 20; ++i) step();
  EXPECT_EQ(mallinfo2().uordblks, held);
}

TEST_P(BatchNormCases, RepeatsToTheLastBit) {
  Case t(GetParam(), {3, 17, 19, 29});
  Wide again(t.sums.size());
  batchnorm_sums(t.queue, t.x.tensor(), again.data());
  EXPECT_EQ(again, t.sums);
}

}  // namespace
}  // namespace seer::kernels
