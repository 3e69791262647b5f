// SPDX-License-Identifier: Apache-2.0
// Convolutions by oneDNN's primitives: NHWC activations as they are, weights reordered to what the primitive wants.
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
  /// Planned: memory is asked for, but nothing runs, and no code is made.
  explicit OnednnConv(device::Space space = device::Space::host);

  /// `input`, `output`: src and dst, or d_dst and d_src, both of `type`.
  void run(Direction direction, const ConvShape& shape, DType type, void* input, Weights weights, PackedWeights& packed,
           void* output);
  void run_weights(const ConvShape& shape, DType type, void* src, void* d_dst, float* d_weight, Accumulate accumulate);

  /// Whether the library has a primitive for it. Nothing is kept.
  bool can_run(Direction direction, const ConvShape& shape, DType type);

  std::size_t held_bytes() const { return library_scratch_.bytes() + blocked_.bytes(); }
  /// The library's name of what it runs, for example "brgconv_1x1:avx512_core".
  std::string implementation(Direction direction, const ConvShape& shape, DType type = DType::f32);

 private:
  /// A primitive and its arguments; the handles of the arguments are set at every call.
  struct Plan {
    dnnl::primitive primitive;
    dnnl::memory src, weights, dst, scratch, plain;
    std::unordered_map<int, dnnl::memory> arguments;
    dnnl::reorder reorder;      ///< plain -> weights, or back for backward_weights; unused where they are the same
    dnnl::reorder reorder_add;  ///< backward_weights: the same, added to what is there
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
