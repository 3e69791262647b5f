// SPDX-License-Identifier: Apache-2.0
// The ways that can be chosen: each kind with its engines and the scratch memory of its copies. If engine and copies
// together exceed the workspace, the same kind over fewer images at a time.
#include <fmt/format.h>

#include <algorithm>

#include "cudnn_conv.hpp"

namespace seer::dnn {
namespace {

using cudnn::EngineConfig;

/// Engines that are tried for one kind. cuDNN's best few proposals are all close; making a plan may involve a compiler.
constexpr std::int64_t kProposals = 10, kFallbacks = 4;

std::size_t bytes(std::int64_t elems, DType type) {
  return static_cast<std::size_t>(elems) * dtype_bytes(type);
}
std::int64_t src_elems(const ConvShape& s) {
  return s.n * s.h * s.w * s.c_in;
}
std::int64_t dst_elems(const ConvShape& s) {
  return s.n * s.out_h() * s.out_w() * s.c_out;
}

/// `exact`: the operands fit the tensor cores' type, so that rounding changes nothing.
bool admitted(const EngineConfig& engine, const DeviceOptions& options, DType operands, bool exact) {
  if (options.deterministic && engine.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  if (engine.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) return false;
  if (engine.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)) return false;
  if (operands != DType::f32 || exact || options.tf32) return true;
  // Strict floats: no TF32, and no transform that loses digits.
  for (const auto note :
       {CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_FFT, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
        CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13}) {
    if (engine.has(note)) return false;
  }
  return true;
}

/// A way without an engine.
struct Kind {
  const char* name;
  DType operands, gradient;
  bool padded;
};

/// Scratch memory of the gradient of the weights: as the engine leaves it, without padding, and as float.
std::size_t gradient_bytes(const ConvShape& shape, const Way& way) {
  Layout layout;
  layout.add(bytes(way.shape.weight_elems(), way.gradient));
  if (way.padded) layout.add(bytes(shape.weight_elems(), way.gradient));
  if (way.gradient != DType::f32) layout.add(bytes(shape.weight_elems(), DType::f32));
  return layout.bytes();
}

std::size_t operand_bytes(const ConvShape& s, DType type) {
  Layout layout;
  layout.add(bytes(src_elems(s), type));
  layout.add(bytes(dst_elems(s), type));
  return layout.bytes();
}

bool has_tensor_cores(const EngineConfig& engine) {
  return engine.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
}

/// Collects the ways of one convolution.
class Offers {
 public:
  Offers(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape, DType type,
         std::int64_t alignment)
      : target_(target), options_(options), direction_(direction), shape_(shape), type_(type), alignment_(alignment) {}

  /// Adds the engines of a kind over all images at once, if the workspace allows. Engines that it does not allow are
  /// offered over the largest number of images that fits: workspaces and copies grow with the images.
  void add(const Kind& kind) {
    std::vector<Way> left_out;
    for (auto& way : proposed(kind, shape_.n)) (fits(way) ? ways_.all : left_out).push_back(std::move(way));
    if (left_out.empty()) return;
    const bool tensor_cores =
        std::any_of(left_out.begin(), left_out.end(), [](const Way& w) { return w.tensor_cores; });
    const auto misses = [&](const Way& way) {
      if (tensor_cores) return way.tensor_cores;
      return std::any_of(left_out.begin(), left_out.end(),
                         [&](const Way& other) { return other.engine.number == way.engine.number; });
    };
    for (std::int64_t images = shape_.n / 2; images > 0; --images) {
      if (shape_.n % images != 0) continue;  // one plan serves all calls
      const auto before = ways_.all.size();
      for (auto& way : proposed(kind, images)) {
        if (misses(way) && fits(way)) ways_.all.push_back(std::move(way));
      }
      if (ways_.all.size() > before) return;
    }
    if (tensor_cores && type_ != DType::f32) ways_.tensor_cores_left_out = true;
  }

  /// A product of the operands as they lie in memory.
  void add_product(const ProductShape& product) {
    Way way = model({"product", type_, product.out, false}, shape_.n);
    way.workspace_bytes = 0;
    way.product = product;
    way.tensor_cores = type_ != DType::f32 || options_.tf32;
    ways_.all.push_back(std::move(way));
  }

  /// A gradient of weights as a product of operands copied to padded rows, over as many images as the workspace allows.
  void add_padded_product() {
    for (std::int64_t images = shape_.n; images > 0; --images) {
      if (shape_.n % images != 0) continue;
      Way way = model({"padded_product", type_, DType::f32, true}, images);
      if (way.workspace_bytes + product_workspace_bytes(options_.workspace_bytes) > options_.workspace_bytes) continue;
      const auto& s = way.shape;
      way.product = gradient_product(s, type_);
      way.tensor_cores = true;
      ways_.all.push_back(std::move(way));
      return;
    }
  }

  Ways take() {
    const bool has = std::any_of(ways_.all.begin(), ways_.all.end(), [](const Way& way) { return way.tensor_cores; });
    if (has) ways_.tensor_cores_left_out = false;
    return std::move(ways_);
  }

 private:
  bool fits(const Way& way) const {
    return way.workspace_bytes + way.engine.workspace_bytes <= options_.workspace_bytes;
  }

  Way model(const Kind& kind, std::int64_t images) const {
    Way way;
    way.name = images < shape_.n ? fmt::format("pieces{}:{}", images, kind.name) : kind.name;
    way.shape = kind.padded ? PaddedWidths(shape_).shape(shape_) : shape_;
    way.shape.n = images;
    way.operands = kind.operands;
    way.gradient = kind.gradient;
    way.padded = kind.padded;
    if (direction_ == Direction::backward_weights) way.workspace_bytes = gradient_bytes(shape_, way);
    if (copies(kind)) way.workspace_bytes += operand_bytes(way.shape, kind.operands);
    return way;
  }

  bool copies(const Kind& kind) const { return kind.padded || kind.operands != type_; }

  /// Alignment that every piece of the tensors has.
  std::int64_t piece_alignment(std::int64_t images) const {
    auto alignment = alignment_;
    if (images == shape_.n) return alignment;
    ConvShape part = shape_;
    part.n = images;
    for (const auto elems : {src_elems(part), dst_elems(part)}) {
      while (bytes(elems, type_) % static_cast<std::size_t>(alignment) != 0) alignment /= 2;
    }
    return alignment;
  }

  /// One way for each engine that cuDNN proposes for a kind.
  std::vector<Way> proposed(const Kind& kind, std::int64_t images) const {
    std::vector<Way> found;
    const auto way = model(kind, images);
    const auto& s = way.shape;
    const auto alignment = copies(kind) ? 16 : piece_alignment(images);
    const bool weights_result = direction_ == Direction::backward_weights;
    // Float weights of 1x1 convolutions are used in place; all other weights are our own aligned copies.
    const auto weight_alignment = !weights_result && weights_used_in_place(shape_, type_) ? alignment_ : 16;
    try {
      const auto x = cudnn::activation(1, kind.operands, {s.n, s.h, s.w, s.c_in}, alignment);
      const auto w =
          cudnn::weights(2, weights_result ? kind.gradient : kind.operands, s, cudnn::Order::krsc, weight_alignment);
      const auto y = cudnn::activation(3, kind.operands, {s.n, s.out_h(), s.out_w(), s.c_out}, alignment);
      const auto graph = cudnn::Graph::convolution(target_, direction_, s, x, w, y);
      std::vector<std::string> seen;
      for (const auto& [mode, at_most] :
           {std::pair{CUDNN_HEUR_MODE_A, kProposals}, {CUDNN_HEUR_MODE_FALLBACK, kFallbacks}}) {
        std::int64_t taken = 0;
        for (auto& engine : cudnn::propose(graph, mode, 32)) {
          if (taken == at_most) break;
          if (!admitted(engine, options_, kind.operands, kind.operands != type_)) continue;
          if (std::find(seen.begin(), seen.end(), engine.name) != seen.end()) continue;
          seen.push_back(engine.name);
          ++taken;
          auto& to = found.emplace_back(model(kind, images));
          to.name += engine.name;
          to.tensor_cores = has_tensor_cores(engine);
          to.engine = std::move(engine);
        }
      }
    } catch (const cudnn::Failure& failure) {
      if (!failure.unsupported()) throw;  // this kind does not work; another one may
    }
    return found;
  }

  cudnn::Target target_;
  const DeviceOptions& options_;
  Direction direction_;
  ConvShape shape_;
  DType type_;
  std::int64_t alignment_;
  Ways ways_;
};

void add_weight_gradients(Offers& offers, const DeviceOptions& options, const ConvShape& shape, DType type,
                          std::int64_t alignment) {
  const bool odd = PaddedWidths(shape).needed() && type != DType::f32;
  if (is_matrix_product(shape)) {
    auto product = gradient_product(shape, type);
    product.align_a = product.align_b = alignment;
    offers.add_product(product);
    if (odd) offers.add_padded_product();
  }
  offers.add({"", type, DType::f32, false});
  if (type == DType::f32) return;
  if (odd) offers.add({"padded:", type, DType::f32, true});
  offers.add({"wide:", DType::f32, DType::f32, false});
  if (options.float_weight_gradients) return;
  offers.add({"rounded:", type, type, false});
  if (odd) offers.add({"padded_rounded:", type, type, true});
}

}  // namespace

bool is_matrix_product(const ConvShape& s) {
  return s.kernel == 1 && s.stride == 1 && s.pad == 0 && s.groups == 1;
}

ProductShape gradient_product(const ConvShape& s, DType type) {
  // cuBLASLt writes and adds floats, whatever the type of the operands.
  return {.m = s.c_out,
          .n = s.c_in,
          .k = s.n * s.h * s.w,
          .ta = Transpose::yes,
          .tb = Transpose::no,
          .type = type,
          .out = DType::f32};
}

Ways ways(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape, DType type,
          std::int64_t alignment) {
  Offers offers(target, options, direction, shape, type, alignment);
  if (direction == Direction::backward_weights) {
    add_weight_gradients(offers, options, shape, type, alignment);
    return offers.take();
  }
  if (is_matrix_product(shape)) {
    const bool forward = direction == Direction::forward;
    offers.add_product({.m = shape.n * shape.h * shape.w,
                        .n = forward ? shape.c_out : shape.c_in,
                        .k = forward ? shape.c_in : shape.c_out,
                        .ta = Transpose::no,
                        .tb = forward ? Transpose::yes : Transpose::no,
                        .type = type,
                        .out = type,
                        .align_a = alignment,
                        .align_b = alignment,
                        .align_c = alignment});
  }
  offers.add({"", type, type, false});
  if (type != DType::f32 && PaddedWidths(shape).needed()) offers.add({"padded:", type, type, true});
  return offers.take();
}

}  // namespace seer::dnn
