// SPDX-License-Identifier: Apache-2.0
// Convolutions on the device. Each shape and direction has several ways:
//
//   (engine)          the operands as they lie in memory, weights in KRSC and the operands' type
//   padded:(engine)   where the channels of a group are no multiple of 8, in half precision: operands copied to wider
//                     rows with zeros behind, results copied back. The engine gains, the copies cost: measured.
//   wide:(engine)     gradients of weights in half precision: operands widened to float; products on TF32 cores, exact,
//                     and sums in float
//   rounded:(engine), padded_rounded:(engine)   the gradient of the weights rounded to the operands' type, then widened
//   product           1x1 convolutions that are plain products, by cuBLASLt
//   padded_product    their gradients of weights, operands copied as for "padded:"
//   pieces(N):(way)   any of them over N images at a time, where all at once would take more than the workspace
//
// The fastest is taken (choices.hpp).
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "../direction.hpp"
#include "../packed_weights.hpp"
#include "choices.hpp"
#include "cublaslt_gemm.hpp"
#include "cudnn_graph.hpp"
#include "reorder.hpp"
#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {

/// How one convolution is done.
struct Way {
  std::string name;
  ConvShape shape;              ///< that the engine sees: padded channels, images of one call
  DType operands = DType::f32;  ///< that the engine sees
  DType gradient = DType::f32;  ///< of the weights, as the engine leaves it
  bool padded = false;
  bool tensor_cores = false;
  std::optional<ProductShape> product;
  cudnn::EngineConfig engine;
  cudnn::Plan plan;                 ///< made at first use
  bool ready = false;               ///< the plan is there, if it needs one
  std::size_t workspace_bytes = 0;  ///< scratch memory of its copies; once it is ready, the engine's as well
};

/// 1x1, stride 1, one group: the tensors as they lie in memory are matrices.
bool is_matrix_product(const ConvShape& shape);
/// The gradient of such a convolution's weights, operands on good boundaries.
ProductShape gradient_product(const ConvShape& shape, DType type);

struct Ways {
  std::vector<Way> all;
  /// Half precision: there are engines with tensor cores, and not one fits the workspace, not even for one image.
  bool tensor_cores_left_out = false;
};

/// What the ways of a convolution are; the engines of the target as cuDNN proposes them, those left out that do not
/// keep what the options promise. Best guesses first. `alignment`: of all pointers that the engine is given as they
/// are.
Ways ways(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape, DType type,
          std::int64_t alignment);

class CudnnConv {
 public:
  CudnnConv(const DeviceOptions& options, ChoiceSetting setting, cudnnHandle_t handle, CublasltGemm& gemm,
            Scratch& scratch);

  /// Forward and backward to data.
  void run(cudaStream_t stream, Direction direction, const ConvShape& shape, DType type, const void* in, Weights weight,
           void* out);
  void run_weights(cudaStream_t stream, const ConvShape& shape, DType type, const void* src, const void* d_dst,
                   float* d_weight, Accumulate accumulate);

  void set_packed_limit(std::size_t bytes) { packed_.set_limit(bytes); }
  std::size_t held_bytes() const { return packed_.held_bytes() + reorder_.held_bytes(); }

 private:
  struct Key {
    Direction direction;
    ConvShape shape;
    DType type;
    std::int64_t alignment;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };
  using Run = std::function<void(Way&)>;

  /// The way chosen for a key; chosen now, by running `run`, if this is the first time.
  Way& chosen(cudaStream_t stream, const Key& key, const Run& run);
  /// Makes the plan, if it is not there; false where this way cannot be gone here or needs more than the workspace.
  bool ready(Way& way);
  /// Microseconds of a run. What fails for another reason than that it is not supported is no matter of choice: without
  /// memory or on a broken device a slow way would be kept for good.
  std::optional<double> measure(cudaStream_t stream, Way& way, const Run& run, double best_us);
  /// The weights as the way wants them.
  const void* packed(cudaStream_t stream, const Way& way, const ConvShape& shape, DType type, Weights weight);
  void pack(cudaStream_t stream, const Way& way, const ConvShape& shape, DType type, const void* weight, void* to);
  void go(cudaStream_t stream, Direction direction, Way& way, const ConvShape& shape, DType type, const void* in,
          const void* weight, void* out);
  void go_weights(cudaStream_t stream, Way& way, const ConvShape& shape, DType type, const void* src, const void* d_dst,
                  float* d_weight, Accumulate accumulate);

  DeviceOptions options_;
  ChoiceSetting setting_;
  cudnnHandle_t handle_;
  CublasltGemm& gemm_;
  Scratch& scratch_;
  Reorder reorder_;
  PackedWeights packed_;
  Choices choices_;
  std::unordered_map<Key, Way, KeyHash> chosen_;
};

}  // namespace seer::dnn
