// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLASLt, with bias and addition fused. Our matrices are row-major, cuBLASLt's are column-major:
// each side sees the other's matrix as its transpose, so c = op(a) op(b) is computed as c^T = op(b)^T op(a)^T.
#pragma once

#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>

#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// cuBLASLt has no algorithm for a shape; another way may work.
struct NoAlgorithm : Error {
  using Error::Error;
};

/// Limit on the scratch memory of products, as part of `limit_bytes` for a call: NVIDIA's recommendation for its
/// largest devices. More makes no product faster, and copies need room.
constexpr std::size_t product_workspace_bytes(std::size_t limit_bytes) {
  return std::min(limit_bytes / 2, std::size_t{32} << 20);
}

/// Algorithms of one product that are worth timing.
constexpr int kProductAlgorithms = 8;

/// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c) (+ bias[n]), row-major, dense; a and b of `type`, c of `out`, bias float.
struct ProductShape {
  std::int64_t m = 1, n = 1, k = 1;
  Transpose ta = Transpose::no, tb = Transpose::no;
  DType type = DType::f32, out = DType::f32;
  bool add = false, bias = false;
  std::int64_t align_a = 16, align_b = 16, align_c = 16, align_bias = 16;  ///< alignment of the pointers, bytes
  int algorithm = 0;  ///< which of cuBLASLt's proposals, the best by its own estimate first; if it has fewer, the last
  auto operator<=>(const ProductShape&) const = default;
};

/// The same in cuBLASLt's terms: column-major; its A is our b, its B is our a. Leading dimensions: the rows.
struct ColumnMajor {
  std::int64_t rows_a, columns_a;  ///< as stored
  std::int64_t rows_b, columns_b;
  std::int64_t rows_c, columns_c;
  bool transpose_a, transpose_b;
};
ColumnMajor column_major(const ProductShape& shape);

/// The largest power of two that divides the address, at most 16.
std::int64_t alignment_bytes(const void* data);

class CublasltGemm {
 public:
  CublasltGemm(bool tf32, bool deterministic, std::size_t workspace_limit_bytes);

  /// Number of algorithms for this shape, at most kProductAlgorithms.
  int algorithms(const ProductShape& shape) { return plan(shape).algorithms; }
  /// Bytes of scratch memory that run() needs for this shape.
  std::size_t workspace_bytes(const ProductShape& shape) { return plan(shape).workspace_bytes; }
  void run(cudaStream_t stream, const ProductShape& shape, const void* a, const void* b, void* c, const float* bias,
           void* workspace);

 private:
  using Layout = device::Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
  struct Plan {
    device::Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy> operation;
    Layout a, b, c;
    cublasLtMatmulAlgo_t algorithm{};
    int algorithms = 0;
    std::size_t workspace_bytes = 0;
  };
  Plan& plan(const ProductShape& shape);

  bool tf32_, deterministic_;
  std::size_t workspace_limit_bytes_;
  device::Owned<cublasLtHandle_t, cublasLtDestroy> handle_;
  std::map<ProductShape, Plan> plans_;
};

}  // namespace seer::dnn
