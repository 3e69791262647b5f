// SPDX-License-Identifier: Apache-2.0
// Matrix products of layers, in the precision of the context.
#pragma once

#include <cstdint>

#include "seer/nn/context.hpp"

namespace seer::nn {

/// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c) (+ bias), as Backend::gemm. Operands are float in memory; if ctx.compute is
/// a half type, they are first rounded to it in scratch from the pool. Sums and c are float.
void product(const Context& ctx, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, dnn::Transpose ta,
             const float* b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate = dnn::Accumulate::no,
             const float* bias = nullptr);

}  // namespace seer::nn
