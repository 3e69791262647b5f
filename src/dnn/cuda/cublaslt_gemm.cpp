// SPDX-License-Identifier: Apache-2.0
#include "cublaslt_gemm.hpp"

#include <fmt/format.h>

#include <algorithm>

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

/// Owns cuBLASLt's preference object.
struct Preference {
  Preference() { check(cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate", "a search"); }
  ~Preference() { cublasLtMatmulPreferenceDestroy(raw); }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;
  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t name, T value) {
    check(cublasLtMatmulPreferenceSetAttribute(raw, name, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute",
          "a search");
  }
  cublasLtMatmulPreference_t raw = nullptr;
};

}  // namespace

ColumnMajor column_major(const ProductShape& s) {
  const bool ta = s.ta == Transpose::yes, tb = s.tb == Transpose::yes;
  // A row-major [r, c] matrix is in memory a column-major [c, r] with leading dimension c.
  return {.rows_a = tb ? s.k : s.n,
          .columns_a = tb ? s.n : s.k,
          .leading_a = tb ? s.k : s.n,
          .rows_b = ta ? s.m : s.k,
          .columns_b = ta ? s.k : s.m,
          .leading_b = ta ? s.m : s.k,
          .rows_c = s.n,
          .columns_c = s.m,
          .leading_c = s.n,
          .transpose_a = tb,
          .transpose_b = ta};
}

std::int64_t alignment_bytes(const void* data) {
  const auto address = reinterpret_cast<std::uintptr_t>(data) | 16;
  return static_cast<std::int64_t>(address & (~address + 1));
}

std::size_t CublasltGemm::ShapeHash::operator()(const ProductShape& s) const {
  std::size_t hash = static_cast<std::size_t>(s.type) * 4 + static_cast<std::size_t>(s.out);
  for (const bool flag : {s.ta == Transpose::yes, s.tb == Transpose::yes, s.add, s.bias})
    hash = hash * 2 + (flag ? 1 : 0);
  for (const auto value : {s.m, s.n, s.k, s.align_a, s.align_b, s.align_c, s.align_bias}) {
    hash = hash * 1000003 + static_cast<std::size_t>(value);
  }
  return hash;
}

CublasltGemm::CublasltGemm(bool tf32, bool deterministic, std::size_t workspace_limit_bytes)
    : tf32_(tf32),
      deterministic_(deterministic),
      workspace_limit_bytes_(product_workspace_bytes(workspace_limit_bytes)) {
  check(cublasLtCreate(&handle_), "cublasLtCreate", "creating the device's back end");
}

CublasltGemm::~CublasltGemm() {
  for (auto& [shape, plan] : plans_) destroy(plan);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

void CublasltGemm::destroy(Plan& plan) {
  for (auto* layout : {plan.a, plan.b, plan.c}) {
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
  if (plan.operation != nullptr) cublasLtMatmulDescDestroy(plan.operation);
  plan = {};
}

CublasltGemm::Plan& CublasltGemm::plan(const ProductShape& s) {
  const auto known = plans_.find(s);
  if (known != plans_.end()) return known->second;
  const std::string what = text(s);
  Plan made;
  try {
    const auto compute = s.type == DType::f32 && tf32_ ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(cublasLtMatmulDescCreate(&made.operation, compute, CUDA_R_32F), "cublasLtMatmulDescCreate", what);
    const auto set = [&](cublasLtMatmulDescAttributes_t name, auto value) {
      check(cublasLtMatmulDescSetAttribute(made.operation, name, &value, sizeof value),
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
    const auto layout = [&](cublasLtMatrixLayout_t& to, DType type, std::int64_t rows, std::int64_t columns,
                            std::int64_t leading) {
      check(cublasLtMatrixLayoutCreate(&to, data_type(type), static_cast<std::uint64_t>(rows),
                                       static_cast<std::uint64_t>(columns), leading),
            "cublasLtMatrixLayoutCreate", what);
    };
    layout(made.a, s.type, shape.rows_a, shape.columns_a, shape.leading_a);
    layout(made.b, s.type, shape.rows_b, shape.columns_b, shape.leading_b);
    layout(made.c, s.out, shape.rows_c, shape.columns_c, shape.leading_c);

    Preference preference;
    preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{workspace_limit_bytes_});
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<std::uint32_t>(s.align_b));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<std::uint32_t>(s.align_a));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<std::uint32_t>(s.align_c));
    preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<std::uint32_t>(s.align_c));
    // Partial sums of a split k are added in float and, if bits must repeat, not in order of arrival.
    preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE |
                                              (deterministic_ ? 0 : CUBLASLT_REDUCTION_SCHEME_INPLACE)));
    cublasLtMatmulHeuristicResult_t result{};
    int found = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, made.operation, made.a, made.b, made.c, made.c,
                                                       preference.raw, 1, &result, &found);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && found == 0)) {
      throw NoAlgorithm(ExitCode::device, fmt::format("cuBLASLt: no algorithm for {}", what));
    }
    check(status, "cublasLtMatmulAlgoGetHeuristic", what);
    made.algorithm = result.algo;
    made.workspace_bytes = result.workspaceSize;
  } catch (...) {
    destroy(made);
    throw;
  }
  return plans_.emplace(s, made).first->second;
}

std::size_t CublasltGemm::workspace_bytes(const ProductShape& shape) {
  return plan(shape).workspace_bytes;
}

void CublasltGemm::run(cudaStream_t stream, const ProductShape& s, const void* a, const void* b, void* c,
                       const float* bias, void* workspace) {
  Plan& p = plan(s);
  if (s.bias) {
    check(cublasLtMatmulDescSetAttribute(p.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
          "cublasLtMatmulDescSetAttribute", text(s));
  }
  const float alpha = 1, beta = s.add ? 1 : 0;
  const auto status = cublasLtMatmul(handle_, p.operation, &alpha, b, p.a, a, p.b, &beta, c, p.c, c, p.c, &p.algorithm,
                                     workspace, p.workspace_bytes, stream);
  if (status != CUBLAS_STATUS_SUCCESS) check(status, "cublasLtMatmul", text(s));
}

}  // namespace seer::dnn
