// SPDX-License-Identifier: Apache-2.0
// A rank's threads share the loops of the kernels: results do not depend on their number, to the bit.
#include <gtest/gtest.h>
#include <omp.h>

#include <array>
#include <vector>

#include "../dnn/naive.hpp"
#include "kernel_test.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"

namespace seer::kernels {
namespace {

struct Results {
  std::vector<double> sums, backward;
  std::vector<float> y, d_x, pooled, open;
  bool operator==(const Results&) const = default;
};

Results compute(int threads, std::int64_t n, std::int64_t side, std::int64_t c) {
  omp_set_num_threads(threads);
  const device::Shape shape{n, side, side, c};
  auto x = dnn::naive::random(shape.elems(), 1), d_y = dnn::naive::random(shape.elems(), 2);
  std::vector<float> mean(test::at(c)), inv_std(test::at(c)), gamma(test::at(c), 1.5F), beta(test::at(c), -0.1F);
  Results out{std::vector<double>(test::at(2 * c + 1)),
              std::vector<double>(test::at(2 * c)),
              std::vector<float>(x.size()),
              std::vector<float>(x.size()),
              std::vector<float>(test::at(n * c)),
              std::vector<float>(test::at(2 * n * c))};
  device::Queue queue;
  const device::Tensor tensor{x.data(), shape}, gradient{d_y.data(), shape};
  const BatchNorm bn{mean.data(), inv_std.data(), gamma.data(), beta.data()};
  batchnorm_sums(queue, tensor, out.sums.data());
  batchnorm_statistics(queue, c, out.sums.data(), 1e-5F, mean.data(), inv_std.data(), 0.1F, nullptr, nullptr);
  batchnorm_apply(queue, tensor, bn, Relu::yes, {out.y.data(), shape});
  batchnorm_relu_pool(queue, tensor, bn, {out.pooled.data(), {n, 1, 1, c}}, out.open.data());
  const BatchNormGradient g{.d_y = gradient, .relu = Relu::yes};
  batchnorm_backward_sums(queue, tensor, bn, g, out.backward.data());
  batchnorm_backward_apply(queue, tensor, bn, g, out.backward.data(), static_cast<double>(tensor.rows()),
                           {out.d_x.data(), shape});
  omp_set_num_threads(1);
  return out;
}

TEST(Threads, DoNotChangeResults) {
  for (const auto& [n, side, c] : {std::array<std::int64_t, 3>{1, 3, 5}, {4, 14, 896}, {3, 57, 72}, {2, 130, 24}}) {
    const auto one = compute(1, n, side, c);
    for (const int threads : {2, 3, 7})
      EXPECT_TRUE(compute(threads, n, side, c) == one) << threads << " threads, " << c << " channels";
  }
}

}  // namespace
}  // namespace seer::kernels
