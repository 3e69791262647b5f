// SPDX-License-Identifier: Apache-2.0
// Convolutions on the device. Each shape and direction can be computed in several ways:
//
//   (engine)          the operands as they lie in memory; weights in KRSC and the operands' type
//   padded:(engine)   half precision, channels per group not a multiple of 8: operands are copied to wider rows filled
//                     up with zeros, results are copied back. The engine gains, the copies cost; timing decides.
//   wide:(engine)     gradients of weights in half precision: operands are widened to float; products on TF32 cores,
//                     exact, and sums in float
//   rounded:(engine), padded_rounded:(engine)   the gradient of the weights is rounded to the operands' type, then
//                                               widened
//   product(I)        1x1 convolutions that are plain products, by algorithm I of cuBLASLt's proposals
//   padded_product(I) gradients of their weights, with operands copied as for "padded:"
//   pieces(N):(way)   any of these over N images at a time, if all at once would exceed the workspace
//
// The fastest way is taken (choices.hpp).
#pragma once

#include <cudnn.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "../packed_weights.hpp"
#include "../padded_widths.hpp"
#include "choices.hpp"
#include "cublaslt_gemm.hpp"
#include "cudnn_graph.hpp"
#include "pack.hpp"
#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {

/// One way to compute a convolution.
struct Way {
  std::string name;
  ConvShape shape;              ///< as the engine sees it: padded channels, images of one call
  DType operands = DType::f32;  ///< type that the engine reads
  DType gradient = DType::f32;  ///< type in which the engine leaves the gradient of the weights
  bool padded = false;
  bool tensor_cores = false;
  std::optional<ProductShape> product;
  cudnn::EngineConfig engine;
  cudnn::Plan plan;                 ///< made at first use
  bool ready = false;               ///< the plan exists, if it needs one
  std::size_t workspace_bytes = 0;  ///< scratch memory for its copies; once ready, including the engine's
};

/// Where a way's copies lie in its scratch memory.
struct Copies {
  std::size_t gradient = 0;  ///< of the weights, as the engine leaves it
  std::size_t x = 0, y = 0;  ///< source and destination, or their gradients
  std::size_t bytes = 0;     ///< of all copies
};
Copies copies_of(const Way& way, Direction direction, DType type);

struct Ways {
  std::vector<Way> all;
  /// Half precision only: some engines use tensor cores, but none of them fits the workspace, even for one image.
  bool tensor_cores_left_out = false;
};

/// A 1x1 convolution, forward or backward to data, as a product.
ProductShape data_product(Direction direction, const ConvShape& shape, DType type, std::int64_t alignment);

/// All ways to compute a convolution, best guesses first: the engines that cuDNN proposes for the target, without those
/// that would break what the options promise. `alignment`: minimum over all pointers that the engine receives
/// unchanged.
Ways ways(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape, DType type,
          std::int64_t alignment);

class CudnnConv {
 public:
  /// `machine`: for choice_key().
  CudnnConv(const DeviceOptions& options, std::string machine, cudnnHandle_t handle, CublasltGemm& gemm,
            Scratch& scratch);

  /// Forward and backward to data.
  void run(cudaStream_t stream, Direction direction, const ConvShape& shape, DType type, const void* in, Weights weight,
           void* out);
  /// d_src += gradient, by cuBLASLt. For shapes that device_can_add() accepts.
  void add_to_data(cudaStream_t stream, const ConvShape& shape, DType type, const void* d_dst, Weights weight,
                   void* d_src);
  void run_weights(cudaStream_t stream, const ConvShape& shape, DType type, const void* src, const void* d_dst,
                   float* d_weight, Accumulate accumulate);

  void set_packed_limit(std::size_t bytes) { packed_.set_limit(bytes); }
  std::size_t held_bytes() const { return packed_.held_bytes(); }

 private:
  struct Key {
    Direction direction;
    ConvShape shape;
    DType type;
    std::int64_t alignment;
    auto operator<=>(const Key&) const = default;
  };
  using Run = std::function<void(Way&)>;

  /// Returns the way chosen for a key. On the first call, chooses it by timing `run`.
  Way& chosen(cudaStream_t stream, const Key& key, const Run& run);
  /// Makes the plan if needed. False if this way does not work here or needs more than the workspace.
  bool ready(Way& way);
  /// Microseconds of a run; nothing if this way does not work. Throws if memory runs out or the device fails: otherwise
  /// a slow way would be chosen and saved for good.
  std::optional<double> measure(cudaStream_t stream, Way& way, const Run& run, double best_us);
  /// The weights as a way needs them: in place, or a packed copy.
  const void* packed(cudaStream_t stream, const Way& way, const ConvShape& shape, DType type, Weights weight);
  void go(cudaStream_t stream, Direction direction, Way& way, const ConvShape& shape, DType type, const void* in,
          const void* weight, void* out);
  void go_weights(cudaStream_t stream, Way& way, const ConvShape& shape, DType type, const void* src, const void* d_dst,
                  float* d_weight, Accumulate accumulate);

  DeviceOptions options_;
  std::string machine_;
  cudnnHandle_t handle_;
  CublasltGemm& gemm_;
  Scratch& scratch_;
  PackedWeights packed_;
  Choices choices_;
  std::map<Key, Way> chosen_;
};

}  // namespace seer::dnn
