// SPDX-License-Identifier: Apache-2.0
// Every kernel over activations in bf16 and f16 against itself in float on the same (rounded) values: statistics and
// vectors of an image to the rounding of float, activations to half a unit in the last place.
#include <tuple>

#include "kernel_test.hpp"
#include "mirrored_kernels.hpp"
#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_close;
using test::Shape;
using test::Values;

/// A tensor in a half type; values() as floats.
struct Stored {
  Shape shape;
  DType type;
  std::vector<std::uint16_t> data;

  Stored(Shape s, DType t) : shape(s), type(t), data(at(s.elems()), 0xffff) {}  // NaN: what is not written shows
  Stored(Values from, DType t) : Stored(from.shape, t) {
    Queue queue;
    cast(queue, from.tensor(), tensor());
  }
  Tensor tensor() { return {data.data(), shape, type, device::Space::host}; }
  Values values() {
    Queue queue;
    Values out(shape);
    cast(queue, tensor(), out.tensor());
    return out;
  }
};

class HalfKernels : public testing::TestWithParam<std::tuple<test::Space, DType, Shape>> {
 protected:
  void SetUp() override {
    SEER_NEEDS_SPACE(std::get<0>(GetParam()));
    queue = test::MirroredQueue(std::get<0>(GetParam()));
  }
  const DType type = std::get<1>(GetParam());
  const Shape s = std::get<2>(GetParam());
  const Shape per_image{s.n, 1, 1, s.c};
  test::MirroredQueue queue;
  /// The same tensor twice: stored, and as floats of the same values.
  Stored x{Values(s, 1, 2, 0.3), type}, d_y{Values(s, 2, 1, 0.05), type}, shortcut{Values(s, 3, 1), type};
  Values wide_x = x.values(), wide_d_y = d_y.values(), wide_shortcut = shortcut.values();
  Stored y{s, type};
  Values wide_y{s};
  Values gate{per_image, 4, 0.5, 0.5}, d_pooled{per_image, 5, 1};
  Values gamma{{1, 1, 1, s.c}, 6, 0.5, 1}, beta{{1, 1, 1, s.c}, 7, 0.4}, mean{{1, 1, 1, s.c}, 8, 0.3};
  Values inv_std{{1, 1, 1, s.c}, 9, 0.2, 1};
  BatchNorm bn{mean.data.data(), inv_std.data.data(), gamma.data.data(), beta.data.data()};
  BatchNorm shortcut_bn{beta.data.data(), gamma.data.data(), inv_std.data.data(), mean.data.data()};

  /// y and wide_y hold the results.
  void expect_rounded(const char* what) {
    expect_close(y.values().data, wide_y.data, type == DType::bf16 ? 0x1p-8 : 0x1p-11, what);
    y = Stored(s, type);
    wide_y = Values(s);
  }
};

// Odd sizes, one row, remainders of every kind, and one that is streamed past the caches.
INSTANTIATE_TEST_SUITE_P(Shapes, HalfKernels,
                         testing::Combine(test::kSpaces, testing::Values(DType::bf16, DType::f16),
                                          testing::Values(Shape{1, 1, 1, 5}, Shape{1, 7, 7, 13}, Shape{2, 5, 3, 8},
                                                          Shape{5, 1, 1, 17}, Shape{2, 3, 3, 373}, Shape{4, 33, 31, 7},
                                                          Shape{2, 9, 9, 104}, Shape{3, 2, 1, 2100},
                                                          Shape{2, 112, 113, 379})),
                         [](const auto& each) {
                           const Shape s = std::get<2>(each.param);
                           return test::name_of(std::get<0>(each.param)) +
                                  (std::get<1>(each.param) == DType::bf16 ? "_bf16_" : "_f16_") + std::to_string(s.n) +
                                  "x" + std::to_string(s.h) + "x" + std::to_string(s.w) + "x" + std::to_string(s.c);
                         });

TEST_P(HalfKernels, CastRoundsToNearestAndBack) {
  Values v(s, 11, 3);
  Stored stored(v, type);
  const auto back = stored.values();
  for (std::size_t i = 0; i < v.data.size(); ++i) {
    const float wanted =
        type == DType::bf16 ? static_cast<float>(BFloat16(v.data[i])) : static_cast<float>(Float16(v.data[i]));
    ASSERT_EQ(back.data[i], wanted) << i;
  }
  Stored same(s, type);
  cast(queue, stored.tensor(), same.tensor());
  EXPECT_EQ(same.data, stored.data);
  const DType other_type = type == DType::bf16 ? DType::f16 : DType::bf16;
  Stored other(s, other_type), direct(back, other_type);
  cast(queue, stored.tensor(), other.tensor());
  EXPECT_EQ(other.data, direct.data);
}

TEST(CastRows, IsTheCastOfEveryRow) {
  constexpr std::int64_t kRows = 5, kElems = 7, kFrom = 9, kTo = 8;
  Queue queue;
  for (const DType type : {DType::bf16, DType::f16}) {
    Values given({1, 1, 1, kRows * kFrom}, 3, 2);
    Stored whole(given, type), rows({1, 1, 1, kRows * kTo}, type);
    cast_rows(queue, given.tensor(), kFrom, rows.tensor(), kTo, kRows, kElems);
    Values back({1, 1, 1, kRows * kFrom});
    back.data.assign(back.data.size(), -1);
    cast_rows(queue, rows.tensor(), kTo, back.tensor(), kFrom, kRows, kElems);
    const auto wanted = whole.values();
    for (std::int64_t i = 0; i < kRows * kFrom; ++i) {
      const std::int64_t r = i / kFrom, k = i % kFrom;
      EXPECT_EQ(back.data[at(i)], k < kElems ? wanted.data[at(i)] : -1) << "row " << r << " element " << k;
    }
    for (std::int64_t r = 0; r < kRows; ++r) EXPECT_EQ(rows.data[at(r * kTo + kElems)], 0xffff) << "behind row " << r;
  }
}

TEST_P(HalfKernels, BatchNormForward) {
  std::vector<double> sums(at(2 * s.c + 1)), wide_sums(sums.size());
  batchnorm_sums(queue, x.tensor(), sums.data());
  batchnorm_sums(queue, wide_x.tensor(), wide_sums.data());
  expect_close(sums, wide_sums, 1e-6, "sums");
  for (const Relu relu : {Relu::no, Relu::yes}) {
    batchnorm_apply(queue, x.tensor(), bn, relu, y.tensor());
    batchnorm_apply(queue, wide_x.tensor(), bn, relu, wide_y.tensor());
    expect_rounded("apply");
  }
  Values pooled(per_image), wide_pooled(per_image);
  std::vector<float> open(2 * pooled.data.size()), wide_open(open);
  batchnorm_relu_pool(queue, x.tensor(), bn, pooled.tensor(), open.data());
  batchnorm_relu_pool(queue, wide_x.tensor(), bn, wide_pooled.tensor(), wide_open.data());
  expect_close(pooled.data, wide_pooled.data, 1e-6, "pool");
  expect_close(open, wide_open, 1e-6, "open");
  batchnorm_relu_gate(queue, x.tensor(), bn, gate.tensor(), y.tensor());
  batchnorm_relu_gate(queue, wide_x.tensor(), bn, gate.tensor(), wide_y.tensor());
  expect_rounded("gate");
  for (const BatchNorm* second :
       {static_cast<const BatchNorm*>(nullptr), static_cast<const BatchNorm*>(&shortcut_bn)}) {
    batchnorm_add_relu(queue, x.tensor(), bn, shortcut.tensor(), second, y.tensor());
    batchnorm_add_relu(queue, wide_x.tensor(), bn, wide_shortcut.tensor(), second, wide_y.tensor());
    expect_rounded("residual sum");
  }
  batchnorm_apply(queue, wide_x.tensor(), bn, Relu::yes, wide_y.tensor());
  batchnorm_apply(queue, x.tensor(), bn, Relu::yes, x.tensor());
  y = x;
  expect_rounded("in place");
}

TEST_P(HalfKernels, BatchNormBackward) {
  const double rows = static_cast<double>(s.rows());
  Values d_gate(per_image), wide_d_gate(per_image);
  std::vector<float> open(2 * d_gate.data.size()), d_open(open), wide_d_open(open);
  batchnorm_relu_pool(queue, x.tensor(), bn, d_gate.tensor(), open.data());
  gate_backward(queue, x.tensor(), bn, d_y.tensor(), d_gate.tensor(), d_open.data());
  gate_backward(queue, wide_x.tensor(), bn, wide_d_y.tensor(), wide_d_gate.tensor(), wide_d_open.data());
  expect_close(d_gate.data, wide_d_gate.data, 1e-6, "gate backward");
  for (int form = 0; form < 3; ++form) {
    BatchNormGradient g{.d_y = d_y.tensor(), .relu = form == 0 ? Relu::no : Relu::yes}, wide_g = g;
    wide_g.d_y = wide_d_y.tensor();
    if (form == 2) {
      g.gate = wide_g.gate = gate.data.data();
      g.d_pooled = wide_g.d_pooled = d_pooled.data.data();
      g.open = wide_g.open = open.data();
      g.d_open = d_open.data();
      wide_g.d_open = wide_d_open.data();
    }
    std::vector<double> sums(at(2 * s.c)), wide_sums(sums.size());
    batchnorm_backward_sums(queue, x.tensor(), bn, g, sums.data());
    batchnorm_backward_sums(queue, wide_x.tensor(), bn, wide_g, wide_sums.data());
    expect_close(sums, wide_sums, 1e-6, "backward sums");
    batchnorm_backward_apply(queue, x.tensor(), bn, g, sums.data(), rows, y.tensor());
    batchnorm_backward_apply(queue, wide_x.tensor(), bn, wide_g, sums.data(), rows, wide_y.tensor());
    expect_rounded("backward");
  }
}

// What passes a ReLU is a value that was there: exactly the same in both.
TEST_P(HalfKernels, ReluBackward) {
  Stored over = d_y;
  Values wide_over = wide_d_y;
  relu_backward(queue, shortcut.tensor(), over.tensor());
  relu_backward(queue, wide_shortcut.tensor(), wide_over.tensor());
  EXPECT_EQ(over.values().data, wide_over.data);
  for (const bool normalised : {false, true}) {
    over = d_y;
    wide_over = wide_d_y;
    std::vector<double> sums(at(2 * s.c)), wide_sums(sums.size()), second(sums.size()), wide_second(sums.size());
    const Tensor other = y.tensor(), wide_other = wide_y.tensor();
    cast(queue, x.tensor(), other);
    cast(queue, x.tensor(), wide_other);
    add_relu_backward_sums(queue, shortcut.tensor(), over.tensor(), x.tensor(), bn, sums.data(),
                           normalised ? &other : nullptr, &shortcut_bn, second.data());
    add_relu_backward_sums(queue, wide_shortcut.tensor(), wide_over.tensor(), wide_x.tensor(), bn, wide_sums.data(),
                           normalised ? &wide_other : nullptr, &shortcut_bn, wide_second.data());
    EXPECT_EQ(over.values().data, wide_over.data);
    expect_close(sums, wide_sums, 1e-6, "sums behind the last ReLU");
    expect_close(second, wide_second, 1e-6, "sums of the shortcut");
  }
}

TEST_P(HalfKernels, Elementwise) {
  y = x;
  wide_y = wide_x;
  add(queue, d_y.tensor(), y.tensor());
  add(queue, wide_d_y.tensor(), wide_y.tensor());
  expect_rounded("add");
  copy(queue, x.tensor(), y.tensor());
  EXPECT_EQ(y.data, x.data);
  fill(queue, y.tensor(), -3.5F);
  EXPECT_EQ(y.values().data, std::vector<float>(y.data.size(), -3.5F));
  Values pooled(per_image), wide_pooled(per_image);
  global_average_pool(queue, x.tensor(), pooled.tensor());
  global_average_pool(queue, wide_x.tensor(), wide_pooled.tensor());
  expect_close(pooled.data, wide_pooled.data, 1e-6, "pool");
  global_average_pool_backward(queue, d_pooled.tensor(), y.tensor());
  global_average_pool_backward(queue, d_pooled.tensor(), wide_y.tensor());
  expect_rounded("pool backward");
}

SEER_ON_ALL_SPACES(HalfKernel);

TEST_P(HalfKernel, NanAndInfinityPass) {
  for (const DType type : {DType::bf16, DType::f16}) {
    Values v({1, 1, 1, 3});
    v.data = {std::nanf(""), HUGE_VALF, -1e30F};
    Stored stored(v, type);
    const auto back = stored.values().data;
    EXPECT_TRUE(std::isnan(back[0]));
    EXPECT_EQ(back[1], HUGE_VALF);
    EXPECT_EQ(back[2] == -HUGE_VALF, type == DType::f16);
    Values one({1, 1, 1, 3});
    one.data = {1, 1, 1};
    Values zero({1, 1, 1, 3});
    Stored y({1, 1, 1, 3}, type);
    batchnorm_apply(queue, stored.tensor(), {zero.data.data(), one.data.data(), one.data.data(), zero.data.data()},
                    Relu::yes, y.tensor());
    EXPECT_TRUE(std::isnan(y.values().data[0])) << "a ReLU must not hide it";
  }
}

TEST_P(HalfKernel, TensorsOfDifferentTypesAreRefused) {
  Values wide({1, 2, 2, 3});
  Stored half({1, 2, 2, 3}, DType::bf16);
  EXPECT_THROW(add(queue, half.tensor(), wide.tensor()), Error);
  EXPECT_THROW(relu_backward(queue, wide.tensor(), half.tensor()), Error);
  EXPECT_THROW(relu(queue, half.tensor()), Error);
}

}  // namespace
}  // namespace seer::kernels
