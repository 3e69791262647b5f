// SPDX-License-Identifier: Apache-2.0
// Convolutions by oneDNN's primitives: activations stay NHWC, weights are reordered as each primitive needs them.
#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <vector>

#include "direction.hpp"
#include "onednn_shim.hpp"
#include "packed_weights.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

class OnednnConv {
 public:
  /// Space::planned: requests memory but runs nothing and compiles nothing.
  explicit OnednnConv(device::Space space = device::Space::host);

  /// `input`, `output`: src and dst (forward), or d_dst and d_src (backward to data), all of `type`.
  void run(Direction direction, const ConvShape& shape, DType type, void* input, Weights weights, PackedWeights& packed,
           void* output);
  void run_weights(const ConvShape& shape, DType type, void* src, void* d_dst, float* d_weight, Accumulate accumulate);

  /// True if the library has a primitive for it. Does not keep the plan.
  bool can_run(Direction direction, const ConvShape& shape, DType type);

  std::size_t held_bytes() const { return library_scratch_.bytes() + blocked_.bytes(); }
  /// The library's name for the code that it runs, for example "brgconv_1x1:avx512_core".
  std::string implementation(Direction direction, const ConvShape& shape, DType type = DType::f32);

 private:
  /// A primitive and its arguments; each call sets the arguments' data pointers.
  struct Plan {
    dnnl::primitive primitive;
    dnnl::memory src, weights, dst, scratch, plain;
    std::unordered_map<int, dnnl::memory> arguments;
    dnnl::reorder reorder;      ///< plain -> weights; backward_weights: weights -> plain; unused if both are the same
    dnnl::reorder reorder_add;  ///< backward_weights: the same, adding to the destination
    bool weights_are_plain = false;
    int layout = 0;
    std::size_t weights_bytes = 0, scratch_bytes = 0;
    std::string implementation;
  };
  struct Key {
    ConvShape shape;
    Direction direction;
    DType type;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };

  Plan& plan(Direction direction, const ConvShape& shape, DType type);
  Plan make_plan(Direction direction, const ConvShape& shape, DType type);
  void execute(Plan& plan);
  bool only_plans(const Plan& plan);

  device::Space space_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::unordered_map<Key, Plan, KeyHash> plans_;
  std::vector<dnnl::memory::desc> layouts_;
  Scratch library_scratch_, blocked_;
};

}  // namespace seer::dnn
