// SPDX-License-Identifier: Apache-2.0
// Convolutions and products of half-precision matrices by oneDNN's primitives. (Products of floats use its sgemm, which
// needs no plan.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <dnnl.hpp>
#include <initializer_list>
#include <map>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "gemm_shape.hpp"
#include "packed_weights.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

/// Makes and runs primitives on the CPU.
class Onednn {
 public:
  /// Space::planned: requests memory but runs nothing and compiles nothing.
  explicit Onednn(device::Space space)
      : space_(space), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), scratch_(space) {}

 protected:
  /// A primitive and its arguments; each call sets the arguments' data pointers.
  struct Primitive {
    dnnl::primitive run;
    std::unordered_map<int, dnnl::memory> arguments;
    std::size_t scratch_bytes = 0;
  };
  dnnl::memory memory_of(const dnnl::memory::desc& desc) const { return {desc, engine_, DNNL_MEMORY_NONE}; }
  bool plans() const { return space_ == device::Space::planned; }
  Primitive make(const dnnl::primitive_desc_base& desc, std::initializer_list<int> arguments) const;
  void execute(Primitive& primitive);

  device::Space space_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  Scratch scratch_;
};

/// Activations stay NHWC, weights are reordered as each primitive needs them.
class OnednnConv : private Onednn {
 public:
  explicit OnednnConv(device::Space space = device::Space::host) : Onednn(space), blocked_(space) {}

  /// `input`, `output`: src and dst (forward), or d_dst and d_src (backward to data), all of `type`.
  void run(Direction direction, const ConvShape& shape, DType type, void* input, Weights weights, PackedWeights& packed,
           void* output);
  void run_weights(const ConvShape& shape, DType type, void* src, void* d_dst, float* d_weight, Accumulate accumulate);

  std::size_t held_bytes() const { return scratch_.bytes() + blocked_.bytes(); }

  struct Plan {
    Primitive primitive;
    dnnl::memory src, weights, dst, plain;
    dnnl::reorder reorder;      ///< plain -> weights; backward_weights: weights -> plain; unused if both are the same
    dnnl::reorder reorder_add;  ///< backward_weights: the same, adding to the destination
    bool weights_are_plain = false;
    int layout = 0;
    std::size_t weights_bytes = 0;
  };
  /// Throws dnnl::error if the library has no primitive for it. Does not keep the plan.
  Plan make_plan(Direction direction, const ConvShape& shape, DType type);

 private:
  using Key = std::tuple<ConvShape, Direction, DType>;

  Plan& plan(Direction direction, const ConvShape& shape, DType type);
  void execute(Plan& plan, void* src, void* weights, void* dst);

  std::map<Key, Plan> plans_;
  std::vector<dnnl::memory::desc> layouts_;
  Scratch blocked_;
};

class OnednnGemm : private Onednn {
 public:
  explicit OnednnGemm(device::Space space = device::Space::host) : Onednn(space) {}
  void run(const GemmShape& shape, const void* a, const void* b, float* c);
  std::size_t held_bytes() const { return scratch_.bytes(); }
  Primitive make_plan(const GemmShape& shape) const;

 private:
  std::map<GemmShape, Primitive> plans_;
};

}  // namespace seer::dnn
