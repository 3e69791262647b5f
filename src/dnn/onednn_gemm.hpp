// SPDX-License-Identifier: Apache-2.0
// Products of half-precision matrices by oneDNN's matmul, with sums in float. (Float products use its sgemm, which
// needs no plan.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "onednn_shim.hpp"
#include "packed_weights.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// c[m,n] = op(a)[m,k] * op(b)[k,n] (+ c); a and b of `type`, c float; row-major, dense.
struct GemmShape {
  std::int64_t m = 1, n = 1, k = 1;
  Transpose ta = Transpose::no, tb = Transpose::no;
  DType type = DType::bf16;
  bool add = false;
  bool operator==(const GemmShape&) const = default;
};

class OnednnGemm {
 public:
  explicit OnednnGemm(device::Space space = device::Space::host);  ///< Space::planned: as in OnednnConv
  void run(const GemmShape& shape, const void* a, const void* b, float* c);
  /// True if the library has a primitive for it.
  bool can_run(const GemmShape& shape);
  std::size_t held_bytes() const { return library_scratch_.bytes(); }

 private:
  /// A primitive and its arguments; each call sets the arguments' data pointers.
  struct Plan {
    dnnl::matmul primitive;
    dnnl::memory a, b, c, scratch;
    std::unordered_map<int, dnnl::memory> arguments;
    std::size_t scratch_bytes = 0;
  };
  struct ShapeHash {
    std::size_t operator()(const GemmShape& shape) const;
  };
  Plan make_plan(const GemmShape& shape);

  device::Space space_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::unordered_map<GemmShape, Plan, ShapeHash> plans_;
  Scratch library_scratch_;
};

}  // namespace seer::dnn
