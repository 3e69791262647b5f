// SPDX-License-Identifier: Apache-2.0
// Every kernel on a device against itself on the host (both_spaces.hpp). Device builds only.
#if defined(SEER_CUDA) && !defined(SEER_KERNELS_CUDA)
#include <gtest/gtest.h>

TEST(DeviceKernel, All) {
  GTEST_SKIP() << "not run: the Kokkos of this build has no Cuda, so its kernels are the host's";
}
#endif

#if defined(SEER_KERNELS_CUDA)
#include <limits>
#include <string>
#include <tuple>

#include "both_spaces.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/kernels/optimizer.hpp"
#include "seer/kernels/swav.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::expect_same_on_device;
using test::Shape;
using test::Values;
using test::Workspace;

class DeviceKernels : public testing::TestWithParam<std::tuple<DType, Shape>> {
 protected:
  void SetUp() override { SEER_NEEDS_DEVICE(); }
  const DType type = std::get<0>(GetParam());
  const Shape s = std::get<1>(GetParam());
  const Shape per_image{s.n, 1, 1, s.c}, per_channel{1, 1, 1, s.c};
  const double tolerance = type == DType::f32 ? 2e-6 : (type == DType::bf16 ? 0x1p-8 : 0x1p-11);

  /// Statistics that no batch has: forward and backward need not know.
  BatchNorm normalisation(Workspace& w, std::uint64_t seed) const {
    return {w.given(Values(per_channel, seed, 0.3).data), w.given(Values(per_channel, seed + 1, 0.2, 1).data),
            w.given(Values(per_channel, seed + 2, 0.5, 1).data), w.given(Values(per_channel, seed + 3, 0.4).data)};
  }
};

// Whole vectors and odd ends, images of half vectors (6x6x37) and of none, narrow and wide, one row, images smaller
// than a team and tensors of many teams.
INSTANTIATE_TEST_SUITE_P(
    Shapes, DeviceKernels,
    testing::Combine(testing::Values(DType::f32, DType::bf16, DType::f16),
                     testing::Values(Shape{1, 1, 1, 5}, Shape{1, 7, 7, 13}, Shape{2, 5, 3, 8}, Shape{5, 1, 1, 17},
                                     Shape{2, 3, 3, 373}, Shape{3, 6, 6, 37}, Shape{4, 33, 31, 7}, Shape{3, 2, 1, 2100},
                                     Shape{64, 7, 7, 1344}, Shape{2, 112, 112, 176}, Shape{4, 56, 56, 64})),
    [](const auto& test) {
      const DType type = std::get<0>(test.param);
      const Shape s = std::get<1>(test.param);
      return std::string(type == DType::f32 ? "f32_" : (type == DType::bf16 ? "bf16_" : "f16_")) + std::to_string(s.n) +
             "x" + std::to_string(s.h) + "x" + std::to_string(s.w) + "x" + std::to_string(s.c);
    });

TEST_P(DeviceKernels, BatchNormForward) {
  expect_same_on_device(tolerance, [&](Workspace& w) {
    const Tensor x = w.tensor(Values(s, 1, 2, 0.3), type), shortcut = w.tensor(Values(s, 3, 1), type);
    const Tensor y = w.tensor(s, type), pooled = w.tensor(per_image), gate = w.tensor(Values(per_image, 4, 0.5, 0.5));
    const BatchNorm bn = normalisation(w, 10), second = normalisation(w, 20);
    auto* const sums = w.room<double>(at(2 * s.c + 1));
    batchnorm_sums(w.queue, x, sums);
    w.keep("sums", sums, at(2 * s.c + 1));
    auto *const mean = w.room<float>(at(s.c)), *const inv_std = w.room<float>(at(s.c));
    auto *const running_mean = w.given(Values(per_channel, 5, 1).data), *const running_var = w.given(
                                                                            Values(per_channel, 6, 0.5, 1).data);
    batchnorm_statistics(w.queue, s.c, sums, 1e-5F, mean, inv_std, 0.1F, running_mean, running_var);
    w.keep("mean", mean, at(s.c));
    w.keep("inv_std", inv_std, at(s.c));
    w.keep("running mean", running_mean, at(s.c));
    w.keep("running variance", running_var, at(s.c));
    batchnorm_from_running(w.queue, s.c, running_mean, running_var, 1e-5F, mean, inv_std);
    w.keep("mean of evaluation", mean, at(s.c));
    w.keep("inv_std of evaluation", inv_std, at(s.c));
    for (const Relu relu : {Relu::no, Relu::yes}) {
      batchnorm_apply(w.queue, x, bn, relu, y);
      w.keep("apply", y);
    }
    auto* const open = w.room<float>(at(2 * per_image.elems()));
    batchnorm_relu_pool(w.queue, x, bn, pooled, open);
    w.keep("pool", pooled);
    w.keep("open", open, at(2 * per_image.elems()));
    batchnorm_relu_gate(w.queue, x, bn, gate, y);
    w.keep("gate", y);
    batchnorm_add_relu(w.queue, x, bn, shortcut, nullptr, y);
    w.keep("residual sum", y);
    batchnorm_add_relu(w.queue, x, bn, shortcut, &second, y);
    w.keep("residual sum, normalised shortcut", y);
    batchnorm_apply(w.queue, x, bn, Relu::yes, x);
    w.keep("in place", x);
  });
}

TEST_P(DeviceKernels, BatchNormBackward) {
  expect_same_on_device(tolerance, [&](Workspace& w) {
    const Tensor x = w.tensor(Values(s, 1, 2, 0.3), type), d_y = w.tensor(Values(s, 2, 1, 0.05), type);
    const Tensor out = w.tensor(Values(s, 3, 1), type), d_x = w.tensor(s, type), d_gate = w.tensor(per_image);
    const BatchNorm bn = normalisation(w, 10), second = normalisation(w, 20);
    const float *const gate = w.given(Values(per_image, 4, 0.5, 0.5).data), *const d_pooled =
                                                                                w.given(Values(per_image, 5, 1).data);
    auto *const sums = w.room<double>(at(2 * s.c)), *const shortcut_sums = w.room<double>(at(2 * s.c));
    const auto rows = static_cast<double>(s.rows());
    auto *const open = w.room<float>(at(2 * per_image.elems())), *const d_open =
                                                                     w.room<float>(at(2 * per_image.elems()));
    batchnorm_relu_pool(w.queue, x, bn, d_gate, open);
    gate_backward(w.queue, x, bn, d_y, d_gate, d_open);
    w.keep("d_gate", d_gate);
    for (const BatchNormGradient& g : {BatchNormGradient{.d_y = d_y}, BatchNormGradient{.d_y = d_y, .relu = Relu::yes},
                                       BatchNormGradient{d_y, Relu::yes, gate, d_pooled, open, d_open}}) {
      batchnorm_backward_sums(w.queue, x, bn, g, sums);
      w.keep("backward sums", sums, at(2 * s.c));
      batchnorm_backward_apply(w.queue, x, bn, g, sums, rows, d_x);
      w.keep("backward", d_x);
    }
    float *const d_gamma = w.given(Values(per_channel, 6, 1).data), *const d_beta = w.room<float>(at(s.c));
    batchnorm_parameter_gradients(w.queue, s.c, sums, bn.inv_std, d_gamma, d_beta);
    w.keep("d_gamma", d_gamma, at(s.c));
    w.keep("d_beta", d_beta, at(s.c));
    copy(w.queue, d_y, d_x);
    relu_backward(w.queue, out, d_x);
    w.keep("relu_backward", d_x);
    copy(w.queue, d_y, d_x);
    add_relu_backward_sums(w.queue, out, d_x, x, bn, sums, nullptr, nullptr, nullptr);
    w.keep("sums behind the last ReLU", sums, at(2 * s.c));
    w.keep("gradient behind the last ReLU", d_x);
    add_relu_backward_sums(w.queue, out, d_y, x, bn, sums, &x, &second, shortcut_sums);
    w.keep("sums, normalised shortcut", sums, at(2 * s.c));
    w.keep("sums of the shortcut", shortcut_sums, at(2 * s.c));
    w.keep("gradient, normalised shortcut", d_y);
  });
}

TEST_P(DeviceKernels, Elementwise) {
  expect_same_on_device(tolerance, [&](Workspace& w) {
    const Tensor x = w.tensor(Values(s, 1, 12), type), y = w.tensor(Values(s, 2, 1), type),
                 pooled = w.tensor(per_image);
    add(w.queue, x, y);
    w.keep("add", y);
    global_average_pool(w.queue, x, pooled);
    w.keep("pool", pooled);
    global_average_pool_backward(w.queue, pooled, y);
    w.keep("pool backward", y);
    for (const DType other : {DType::f32, DType::bf16, DType::f16}) {
      const Tensor converted = w.tensor(s, other);
      cast(w.queue, x, converted);
      w.keep("cast", converted);
      cast_rows(w.queue, x, s.c, converted, s.c - 1, s.n, s.c - 2);
      w.keep("cast of rows", converted);
    }
    fill(w.queue, y, -3.5F);
    w.keep("fill", y);
    if (type != DType::f32) return;
    const Tensor d_y = w.tensor(Values(s, 3, 1)), unit = w.tensor(s);
    float *const bias = w.given(Values(per_channel, 4, 1).data), *const norms = w.room<float>(at(s.rows()));
    bias_gradient(w.queue, x, bias);
    w.keep("bias", bias, at(s.c));
    l2_normalize(w.queue, x, unit, norms);
    w.keep("unit rows", unit);
    w.keep("norms", norms, at(s.rows()));
    l2_normalize_backward(w.queue, unit, norms, d_y, y);
    w.keep("unit rows backward", y);
    relu(w.queue, y);
    w.keep("relu", y);
    scale(w.queue, y, 0.3F);
    w.keep("scale", y);
    sigmoid(w.queue, x);
    w.keep("sigmoid", x);
    sigmoid_backward(w.queue, x, d_y);
    w.keep("sigmoid backward", d_y);
  });
}

TEST(DeviceKernel, Sinkhorn) {
  SEER_NEEDS_DEVICE();
  for (const Shape s : {Shape{1, 1, 1, 3}, Shape{7, 1, 1, 131}, Shape{70, 1, 1, 3000}}) {
    expect_same_on_device(1e-5, [&](Workspace& w) {
      const Tensor scores = w.tensor(Values(s, 1, 1)), q = w.tensor(s), gradient = w.tensor(s);
      auto* const sums = w.room<double>(at(s.c));
      auto* const numbers = w.room<double>(4);  // sum, trouble, empty, loss
      auto* const largest = w.room<float>(1);
      maximum(w.queue, scores, largest);
      w.keep("maximum", largest, 1);
      sinkhorn_exponentials(w.queue, scores, largest, 0.05F, q, numbers);
      w.keep("sum", numbers, 1);
      sinkhorn_divide(w.queue, q, numbers, numbers + 1);
      for (int i = 0; i < 3; ++i) {
        sinkhorn_prototype_sums(w.queue, q, sums);
        w.keep("prototype sums", sums, at(s.c));
        sinkhorn_any_empty(w.queue, sums, s.c, numbers + 2);
        sinkhorn_factors(w.queue, sums, s.c, numbers + 1);
        sinkhorn_scale(w.queue, q, sums, i == 2 ? 1.0 : 1.0 / static_cast<double>(s.n));
      }
      w.keep("codes", q);
      swav_cross_entropy(w.queue, scores, q, 1, 0.1F, 0.3, gradient, numbers + 3);
      w.keep("gradient", gradient);
      auto* const prediction = w.given(std::vector<double>(at(s.c), 0.5));
      add_predictions(w.queue, scores, 0.1F, prediction);
      w.keep("prediction", prediction, at(s.c));
      w.keep("trouble, empty, loss", numbers + 1, 3);
      row_entropies(w.queue, q, numbers);
      w.keep("entropies", numbers, 1);
      sinkhorn_harden(w.queue, q);
      w.keep("hard codes", q);
      sinkhorn_add(w.queue, q, 1e-3F);
      w.keep("raised", q);
    });
  }
  expect_same_on_device(1e-12, [&](Workspace& w) {
    double* const sums = w.given(std::vector<double>{0.5, 0, 0.125});
    auto* const found = w.room<double>(2);
    sinkhorn_any_empty(w.queue, sums, 3, found);
    sinkhorn_factors(w.queue, sums, 3, found + 1);
    w.keep("empty, trouble", found, 2);
    w.keep("factors", sums, 3);
    const float inf = std::numeric_limits<float>::infinity();
    const Tensor wild{w.given(std::vector<float>{1, inf, 3, 2, 0, inf}), {2, 1, 1, 3}, DType::f32, w.queue.space};
    sinkhorn_repair(w.queue, wild, found);
    w.keep("repaired sum", found, 1);
    w.keep("repaired", wild);
  });
}

TEST(DeviceKernel, Optimizer) {
  SEER_NEEDS_DEVICE();
  const std::vector<Range> ranges{{0, 1}, {1, 1}, {1, 65537}, {65600, 200001}, {200001, 300001}};
  const std::vector<RangeRule> own{{}, {}, {.rate = 0.5F, .weight_decay = 0.1F}, {.flags = kSkipped}, {}};
  expect_same_on_device(1e-6, [&](Workspace& w) {
    const std::size_t count = 300001;
    float *const p = w.given(test::hash_fill(count, 1, 2)), *const g = w.given(test::hash_fill(count, 2, 0.1)),
                 *const m = w.room<float>(count);
    const FlatRanges table(w.queue.space, ranges);
    double *const parameter = w.room<double>(ranges.size()), *const gradient = w.room<double>(ranges.size());
    const RangeRule* const given = w.given(own);
    const UpdateRule* const rule = w.given(std::vector<UpdateRule>{{.lr = 0.3F, .weight_decay = 1e-2F}});
    for (int step = 0; step < 2; ++step) {
      squared_norms(w.queue, table, p, parameter);
      squared_norms(w.queue, table, g, gradient);
      w.keep("squares of parameters", parameter, ranges.size());
      w.keep("squares of gradients", gradient, ranges.size());
      optimizer_update(w.queue, table, given, parameter, gradient, rule, g, m, p);
    }
    w.keep("parameters", p, count);
    w.keep("momenta", m, count);
    const Tensor rows{p, {300, 1, 1, 1000}, DType::f32, w.queue.space};
    normalize_rows(w.queue, rows);
    w.keep("unit rows", rows);
  });
}

TEST(DeviceKernel, FirstNonFinite) {
  SEER_NEEDS_DEVICE();
  for (const std::int64_t place : {0, 17, 16384, 65535, 131072, 200002}) {
    expect_same_on_device(0, [&](Workspace& w) {
      auto values = test::hash_fill(200003, 6, std::numeric_limits<float>::max() / 2);
      values[at(place)] = std::numeric_limits<float>::infinity();
      const float* const x = w.given(values);
      auto* const found = w.room<std::int64_t>(2);
      first_beyond(w.queue, x, 200003, std::numeric_limits<float>::max(), found);
      first_beyond(w.queue, x, place, std::numeric_limits<float>::max(), found + 1);
      w.keep("found, none", found, 2);
    });
  }
}

}  // namespace
}  // namespace seer::kernels
#endif
