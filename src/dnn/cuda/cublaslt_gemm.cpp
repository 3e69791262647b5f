// SPDX-License-Identifier: Apache-2.0
#include "cublaslt_gemm.hpp"

#include <fmt/format.h>

#include <utility>

#include "seer/base/error.hpp"

namespace seer::dnn {
namespace {

std::string text(const ProductShape& s) {
  return fmt::format("GEMM m {} n {} k {} {}", s.m, s.n, s.k, s.type == DType::f32 ? "float" : "half precision");
}

void check(cublasStatus_t status, const char* call, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ExitCode::device, fmt::format("cuBLASLt: {} from {} in {}", cublasLtGetStatusString(status), call, what));
}

cudaDataType_t data_type(DType type) {
  return type == DType::f32 ? CUDA_R_32F : type == DType::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

/// Creates an object of cuBLASLt's.
template <class Owner, class Create, class... Arguments>
Owner made(const char* call, const std::string& what, Create create, Arguments... arguments) {
  typename Owner::pointer raw = nullptr;
  check(create(&raw, arguments...), call, what);
  return Owner(raw);
}

}  // namespace

ColumnMajor column_major(const ProductShape& s) {
  const bool ta = s.ta == Transpose::yes, tb = s.tb == Transpose::yes;
  // A row-major [r, c] matrix is in memory a column-major [c, r] with leading dimension c.
  return {.rows_a = tb ? s.k : s.n,
          .columns_a = tb ? s.n : s.k,
          .rows_b = ta ? s.m : s.k,
          .columns_b = ta ? s.k : s.m,
          .rows_c = s.n,
          .columns_c = s.m,
          .transpose_a = tb,
          .transpose_b = ta};
}

std::int64_t alignment_bytes(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data) | 16;
  return static_cast<std::int64_t>(address & (~address + 1));
}

CublasltGemm::CublasltGemm(bool tf32, bool deterministic, std::size_t workspace_limit_bytes)
    : tf32_(tf32),
      deterministic_(deterministic),
      workspace_limit_bytes_(product_workspace_bytes(workspace_limit_bytes)),
      handle_(made<decltype(handle_)>("cublasLtCreate", "creating the device's back end", cublasLtCreate)) {}

CublasltGemm::Plan& CublasltGemm::plan(const ProductShape& wanted) {
  ProductShape s = wanted;
  s.add = false;  // the same algorithms add
  const auto known = plans_.find(s);
  if (known != plans_.end()) return known->second;
  const std::string what = text(s);
  Plan plan;
  const auto compute = s.type == DType::f32 && tf32_ ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  plan.operation =
      made<decltype(plan.operation)>("cublasLtMatmulDescCreate", what, cublasLtMatmulDescCreate, compute, CUDA_R_32F);
  const auto set = [&](cublasLtMatmulDescAttributes_t name, auto value) {
    check(cublasLtMatmulDescSetAttribute(plan.operation.get(), name, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute", what);
  };
  const auto shape = column_major(s);
  set(CUBLASLT_MATMUL_DESC_TRANSA, shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (s.bias) {
    // One value for each row of c^T, which is a column of c.
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F);
    // The search uses only the alignment of this address and reads nothing there; each run sets the real one.
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, reinterpret_cast<const void*>(s.align_bias));
  }
  const auto layout = [&](DType type, std::int64_t rows, std::int64_t columns) {
    return made<Layout>("cublasLtMatrixLayoutCreate", what, cublasLtMatrixLayoutCreate, data_type(type),
                        static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), rows);
  };
  plan.a = layout(s.type, shape.rows_a, shape.columns_a);
  plan.b = layout(s.type, shape.rows_b, shape.columns_b);
  plan.c = layout(s.out, shape.rows_c, shape.columns_c);

  using Preference = device::Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;
  const auto preference =
      made<Preference>("cublasLtMatmulPreferenceCreate", "a search", cublasLtMatmulPreferenceCreate);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(preference.get(), name, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute", "a search");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_limit_bytes_});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(s.align_b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(s.align_a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(s.align_c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(s.align_c));
  // Partial sums of a split k are added in float and, if bits must repeat, not in order of arrival.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                    (deterministic_ ? 0 : CUBLASLT_REDUCTION_SCHEME_INPLACE)));
  cublasLtMatmulHeuristicResult_t results[kProductAlgorithms]{};
  int found = 0;
  const auto status =
      cublasLtMatmulAlgoGetHeuristic(handle_.get(), plan.operation.get(), plan.a.get(), plan.b.get(), plan.c.get(),
                                     plan.c.get(), preference.get(), kProductAlgorithms, results, &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && found == 0))
    throw NoAlgorithm(ExitCode::device, fmt::format("cuBLASLt: no algorithm for {}", what));
  check(status, "cublasLtMatmulAlgoGetHeuristic", what);
  const auto& result = results[std::min(s.algorithm, found - 1)];
  plan.algorithm = result.algo;
  plan.algorithms = found;
  plan.workspace_bytes = result.workspaceSize;
  return plans_.emplace(s, std::move(plan)).first->second;
}

void CublasltGemm::run(cudaStream_t stream, const ProductShape& s, const void* a, const void* b, void* c,
                       const float* bias, void* workspace) {
  Plan& p = plan(s);
  if (s.bias) {
    check(cublasLtMatmulDescSetAttribute(p.operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
          "cublasLtMatmulDescSetAttribute", text(s));
  }
  const float alpha = 1, beta = s.add ? 1 : 0;
  const auto status = cublasLtMatmul(handle_.get(), p.operation.get(), &alpha, b, p.a.get(), a, p.b.get(), &beta, c,
                                     p.c.get(), c, p.c.get(), &p.algorithm, workspace, p.workspace_bytes, stream);
  if (status != CUBLAS_STATUS_SUCCESS) check(status, "cublasLtMatmul", text(s));
}

}  // namespace seer::dnn
