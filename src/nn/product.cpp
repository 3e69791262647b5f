// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/product.hpp"

#include "seer/kernels/activation.hpp"

namespace seer::nn {
namespace {

device::Loan rounded(const Context& ctx, const float* values, std::int64_t count) {
  auto queue = ctx.queue;
  auto out = ctx.pool->tensor({1, 1, 1, count}, ctx.compute);
  device::Tensor from = *out;
  from.data = const_cast<float*>(values);
  from.dtype = DType::f32;
  kernels::cast(queue, from, *out);
  return out;
}

}  // namespace

void product(const Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, dnn::Transpose ta,
             const float* b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate, const float* bias) {
  auto queue = ctx.queue;
  if (ctx.compute == DType::f32) return ctx.dnn->gemm(queue, m, n, k, a, ta, b, tb, c, accumulate, bias);
  const auto a_rounded = rounded(ctx, a, m * k), b_rounded = rounded(ctx, b, k * n);
  ctx.dnn->gemm(queue, m, n, k, ctx.compute, a_rounded->data, ta, b_rounded->data, tb, c, accumulate, bias);
}

}  // namespace seer::nn
