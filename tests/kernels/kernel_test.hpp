// SPDX-License-Identifier: Apache-2.0
// What the kernel suites share: owned tensors, and comparison with values computed in double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "golden.hpp"
#include "seer/device/queue.hpp"
#include "seer/device/tensor.hpp"

namespace seer::test {

using device::Queue;
using device::Shape;
using device::Tensor;

/// A float tensor with its memory, filled from hash_fill.
struct Values {
  Shape shape;
  std::vector<float> data;

  explicit Values(Shape s) : shape(s), data(static_cast<std::size_t>(s.elems())) {}
  Values(Shape s, std::uint64_t seed, double scale, double offset = 0) : Values(s) {
    data = hash_fill(data.size(), seed, scale);
    for (float& v : data) v = static_cast<float>(static_cast<double>(v) + offset);
  }
  Tensor tensor() { return {data.data(), shape, DType::f32, device::Space::host}; }
  std::vector<double> wide() const { return {data.begin(), data.end()}; }
};

inline std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

/// ||found - wanted|| <= tolerance * ||wanted|| (+ a little for wanted = 0).
template <class A, class B>
void expect_close(const A& found, const B& wanted, double tolerance, const char* what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double d = static_cast<double>(found[i]) - static_cast<double>(wanted[i]);
    difference += d * d;
    size += static_cast<double>(wanted[i]) * static_cast<double>(wanted[i]);
  }
  EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(size) + 1e-12) << what;
}

/// Central differences of loss(x) at a few elements of x, against the gradient a kernel gave.
inline void expect_gradient(const std::function<double(const std::vector<double>&)>& loss, std::vector<double> x,
                            const std::vector<float>& gradient, double tolerance, const char* what,
                            double step = 1e-5) {
  ASSERT_EQ(x.size(), gradient.size()) << what;
  const std::size_t stride = std::max<std::size_t>(x.size() / 40, 1);
  double size = 0, difference = 0;
  for (std::size_t i = 0; i < x.size(); i += stride) {
    const double middle = x[i];
    x[i] = middle + step;
    const double above = loss(x);
    x[i] = middle - step;
    const double below = loss(x);
    x[i] = middle;
    const double wanted = (above - below) / (2 * step), d = wanted - static_cast<double>(gradient[i]);
    size += wanted * wanted;
    difference += d * d;
  }
  EXPECT_GT(size, 0) << what << ": the loss does not depend on its argument";
  EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(size)) << what;
}

}  // namespace seer::test
