// SPDX-License-Identifier: Apache-2.0
#include "seer/kernels/activation.hpp"

#include "kernel_test.hpp"
#include "mirrored_kernels.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_close;
using test::expect_gradient;
using test::Shape;
using test::Values;
using Wide = std::vector<double>;

SEER_ON_ALL_SPACES(Activation);

const Shape kShapes[] = {{1, 1, 1, 1}, {1, 7, 7, 13}, {3, 5, 4, 8}, {2, 3, 3, 373}, {9, 1, 1, 5001}, {4, 33, 31, 7}};

TEST_P(Activation, ElementwiseMatchesDouble) {
  for (const Shape s : kShapes) {
    const Values x(s, 1, 12), d_y(s, 2, 1);
    Wide relu_wanted(x.wide()), sigmoid_wanted(x.wide()), backward_wanted(x.wide()), sum_wanted(x.wide());
    for (std::size_t i = 0; i < x.data.size(); ++i) {
      const double v = x.data[i], d = d_y.data[i];
      relu_wanted[i] = v > 0 ? v : 0;
      sigmoid_wanted[i] = 1 / (1 + std::exp(-v));
      sum_wanted[i] = v + d;
    }
    Values a = x;
    relu(queue, a.tensor());
    expect_close(a.data, relu_wanted, 0, "relu");
    Values y = x, d = d_y;
    sigmoid(queue, y.tensor());
    expect_close(y.data, sigmoid_wanted, 2e-7, "sigmoid");
    for (std::size_t i = 0; i < y.data.size(); ++i) {  // of the float output: 1 - y is all that is left of it near 1
      const double out = y.data[i];
      backward_wanted[i] = static_cast<double>(d.data[i]) * out * (1 - out);
    }
    sigmoid_backward(queue, y.tensor(), d.tensor());
    expect_close(d.data, backward_wanted, 3e-7, "sigmoid backward");
    Values b = x, from = d_y;
    add(queue, from.tensor(), b.tensor());
    expect_close(b.data, sum_wanted, 1e-7, "add");
    scale(queue, b.tensor(), 0.5F);
    for (double& v : sum_wanted) v /= 2;
    expect_close(b.data, sum_wanted, 1e-7, "scale");
    copy(queue, from.tensor(), b.tensor());
    EXPECT_EQ(b.data, from.data);
    fill(queue, b.tensor(), -3.5F);
    EXPECT_EQ(b.data, std::vector<float>(b.data.size(), -3.5F));
  }
}

TEST_P(Activation, SigmoidAtTheEndsOfTheRange) {
  Values x({1, 1, 1, 6});
  x.data = {-200, -88, 0, 40, 200, std::nanf("")};
  sigmoid(queue, x.tensor());
  EXPECT_EQ(x.data[0], 0.0F);
  EXPECT_NEAR(static_cast<double>(x.data[1]) / std::exp(-88.0), 1, 1e-6);
  EXPECT_EQ(x.data[2], 0.5F);
  EXPECT_EQ(x.data[3], 1.0F);
  EXPECT_EQ(x.data[4], 1.0F);
  EXPECT_TRUE(std::isnan(x.data[5]));
}

TEST_P(Activation, ReductionsMatchDouble) {
  for (const Shape s : kShapes) {
    Values x(s, 3, 1, 0.2), pooled({s.n, 1, 1, s.c}), spread(s);
    const double pixels = static_cast<double>(s.h * s.w);
    Wide bias_wanted(at(s.c), 0.75), pooled_wanted(pooled.data.size()), spread_wanted(x.data.size());
    for (std::int64_t i = 0; i < s.elems(); ++i) {
      const std::size_t k = at(i / (s.h * s.w * s.c) * s.c + i % s.c);
      bias_wanted[at(i % s.c)] += static_cast<double>(x.data[at(i)]);
      pooled_wanted[k] += static_cast<double>(x.data[at(i)]) / pixels;
    }
    std::vector<float> bias(at(s.c), 0.75F);
    bias_gradient(queue, x.tensor(), bias.data());
    expect_close(bias, bias_wanted, 1e-6, "bias gradient is added");
    global_average_pool(queue, x.tensor(), pooled.tensor());
    expect_close(pooled.data, pooled_wanted, 1e-6, "pool");
    global_average_pool_backward(queue, pooled.tensor(), spread.tensor());
    for (std::int64_t i = 0; i < s.elems(); ++i) {
      spread_wanted[at(i)] = static_cast<double>(pooled.data[at(i / (s.h * s.w * s.c) * s.c + i % s.c)]) / pixels;
    }
    expect_close(spread.data, spread_wanted, 1e-6, "pool backward");
  }
}

TEST_P(Activation, L2NormalizeMatchesDoubleAndFiniteDifference) {
  for (const Shape s : {Shape{1, 1, 1, 5}, Shape{6, 1, 1, 256}, Shape{5, 1, 1, 13}}) {
    Values x(s, 4, 3), y(s), weight(s, 5, 1), d_x(s);
    std::vector<float> norms(at(s.n));
    auto loss = [&](const Wide& v) {
      double sum = 0;
      for (std::int64_t r = 0; r < s.n; ++r) {
        double square = 0, along = 0;
        for (std::int64_t k = 0; k < s.c; ++k) {
          const std::size_t i = at(r * s.c + k);
          square += v[i] * v[i];
          along += v[i] * static_cast<double>(weight.data[i]);
        }
        sum += along / std::sqrt(square);
      }
      return sum;
    };
    l2_normalize(queue, x.tensor(), y.tensor(), norms.data());
    for (std::int64_t r = 0; r < s.n; ++r) {
      double square = 0;
      for (std::int64_t k = 0; k < s.c; ++k) square += std::pow(static_cast<double>(y.data[at(r * s.c + k)]), 2);
      EXPECT_NEAR(square, 1, 1e-6);
      EXPECT_NEAR(norms[at(r)] * y.data[at(r * s.c)], x.data[at(r * s.c)], 1e-6);
    }
    l2_normalize_backward(queue, y.tensor(), norms.data(), weight.tensor(), d_x.tensor());
    expect_gradient(loss, x.wide(), d_x.data, 1e-5, "l2_normalize");
    Values over = weight;
    l2_normalize_backward(queue, y.tensor(), norms.data(), over.tensor(), over.tensor());
    EXPECT_EQ(over.data, d_x.data) << "d_x over d_y";
    l2_normalize(queue, x.tensor(), x.tensor(), norms.data());
    EXPECT_EQ(x.data, y.data) << "y over x";
  }
}

TEST_P(Activation, L2NormalizeOfZeroRow) {
  Values x({2, 1, 1, 3}), y({2, 1, 1, 3}), d_y({2, 1, 1, 3}), d_x({2, 1, 1, 3});
  x.data = {0, 0, 0, 3, 0, 4};
  d_y.data = {1e-6F, 0, 2e-6F, 1, 1, 1};
  std::vector<float> norms(2);
  l2_normalize(queue, x.tensor(), y.tensor(), norms.data());
  EXPECT_EQ(y.data[0], 0.0F);
  EXPECT_FLOAT_EQ(y.data[3], 0.6F);
  EXPECT_EQ(norms[0], 0.0F);
  l2_normalize_backward(queue, y.tensor(), norms.data(), d_y.tensor(), d_x.tensor());
  EXPECT_FLOAT_EQ(d_x.data[0], 1e6F);
  EXPECT_FLOAT_EQ(d_x.data[2], 2e6F);
}

}  // namespace
}  // namespace seer::kernels
