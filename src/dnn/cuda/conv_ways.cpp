// SPDX-License-Identifier: Apache-2.0
// The ways that can be chosen: each kind with its engines and the scratch memory of its copies. If engine and copies
// together exceed the workspace, the same kind over fewer images at a time.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cudnn_conv.hpp"

namespace seer::dnn {
namespace {

using cudnn::EngineConfig;

/// Engines that are tried for a kind without copies and for one with them, and settings of one engine: cuDNN proposes
/// many settings of its favourite, which are close to each other. Making a plan may involve a compiler.
constexpr int kEngines = 12, kEnginesOnCopies = 6, kSettings = 3;

/// `exact`: the operands fit the tensor cores' type, so that rounding changes nothing.
bool admitted(const EngineConfig& engine, const DeviceOptions& options, DType operands, bool exact) {
  if (options.deterministic && engine.has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC)) return false;
  if (engine.has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION)) return false;
  if (engine.has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS)) return false;
  if (operands != DType::f32 || exact || options.tf32) return true;
  // Strict floats: no TF32, and no transform that loses digits.
  constexpr cudnnBackendNumericalNote_t kInexact[] = {
      CUDNN_NUMERICAL_NOTE_TENSOR_CORE, CUDNN_NUMERICAL_NOTE_FFT, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,
      CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6, CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13};
  return std::ranges::none_of(kInexact, [&](auto note) { return engine.has(note); });
}

/// A way without an engine.
struct Kind {
  const char* name;
  DType operands, gradient;
  bool padded;
};

ProductShape gradient_product(const ConvShape& s, DType type, std::int64_t alignment) {
  // cuBLASLt writes and adds floats, whatever the type of the operands.
  return {.m = s.c_out,
          .n = s.c_in,
          .k = s.n * s.h * s.w,
          .ta = Transpose::yes,
          .tb = Transpose::no,
          .type = type,
          .out = DType::f32,
          .align_a = alignment,
          .align_b = alignment};
}

/// Collects the ways of one convolution.
struct Offers {
  cudnn::Target target;
  const DeviceOptions& options;
  Direction direction;
  ConvShape shape;
  DType type;
  std::int64_t alignment;
  Ways ways{};

  /// Adds the engines of a kind over all images at once, if the workspace allows. Engines that it does not allow are
  /// offered over the largest number of images that fits: workspaces and copies grow with the images.
  void add(const Kind& kind) {
    std::vector<Way> left_out;
    std::set<std::int64_t> whole;  // engines that need no pieces
    for (auto& way : proposed(kind, shape.n)) {
      if (fits(way)) whole.insert(way.engine.number);
      (fits(way) ? ways.all : left_out).push_back(std::move(way));
    }
    if (left_out.empty()) return;
    const bool tensor_cores = std::ranges::any_of(left_out, &Way::tensor_cores);
    const auto misses = [&](const Way& way) {
      if (tensor_cores) return way.tensor_cores && !whole.contains(way.engine.number);
      return std::ranges::any_of(left_out, [&](const Way& w) { return w.engine.number == way.engine.number; });
    };
    for (std::int64_t images = shape.n / 2; images > 0; --images) {
      if (shape.n % images != 0) continue;  // one plan serves all calls
      const auto before = ways.all.size();
      for (auto& way : proposed(kind, images))
        if (misses(way) && fits(way)) ways.all.push_back(std::move(way));
      if (ways.all.size() > before) return;
    }
    if (tensor_cores && type != DType::f32) ways.tensor_cores_left_out = true;
  }

  /// A product of the operands as they lie in memory.
  void add_product(const ProductShape& product) {
    add_algorithms({"product", type, product.out, false}, shape.n, product);
  }

  /// A gradient of weights as a product of operands copied to padded rows, over as many images as the workspace allows.
  void add_padded_product() {
    const Kind kind{"padded_product", type, DType::f32, true};
    for (std::int64_t images = shape.n; images > 0; --images) {
      if (shape.n % images != 0) continue;
      const Way way = model(kind, images);
      if (way.workspace_bytes + product_workspace_bytes(options.workspace_bytes) > options.workspace_bytes) continue;
      return add_algorithms(kind, images, gradient_product(way.shape, type, 16));
    }
  }

  void add_algorithms(const Kind& kind, std::int64_t images, ProductShape product) {
    for (product.algorithm = 0; product.algorithm < kProductAlgorithms; ++product.algorithm) {
      Way& way = ways.all.emplace_back(model(kind, images));
      if (!way.padded) way.workspace_bytes = 0;
      way.name += std::to_string(product.algorithm);
      way.product = product;
      way.tensor_cores = type != DType::f32 || options.tf32;
    }
  }

  void add_weight_gradients() {
    const bool odd = PaddedWidths(shape).needed() && type != DType::f32;
    if (shape.is_matrix_product()) {
      add_product(gradient_product(shape, type, alignment));
      if (odd) add_padded_product();
    }
    add({"", type, DType::f32, false});
    if (type == DType::f32) return;
    if (odd) add({"padded:", type, DType::f32, true});
    add({"wide:", DType::f32, DType::f32, false});
    if (options.float_weight_gradients) return;
    add({"rounded:", type, type, false});
    if (odd) add({"padded_rounded:", type, type, true});
  }

  Ways take() {
    if (std::ranges::any_of(ways.all, &Way::tensor_cores)) ways.tensor_cores_left_out = false;
    return std::move(ways);
  }

  bool fits(const Way& way) const {
    return way.workspace_bytes + way.engine.workspace_bytes <= options.workspace_bytes;
  }

  Way model(const Kind& kind, std::int64_t images) const {
    Way way;
    way.name = images < shape.n ? fmt::format("pieces{}:{}", images, kind.name) : kind.name;
    way.shape = kind.padded ? PaddedWidths(shape).shape(shape) : shape;
    way.shape.n = images;
    way.operands = kind.operands;
    way.gradient = kind.gradient;
    way.padded = kind.padded;
    way.workspace_bytes = copies_of(way, direction, type).bytes;
    return way;
  }

  /// Alignment that every piece of the tensors has.
  std::int64_t piece_alignment(std::int64_t images) const {
    auto common = alignment;
    if (images == shape.n) return common;
    ConvShape part = shape;
    part.n = images;
    for (const auto elems : {part.src().elems(), part.dst().elems()})
      while (bytes_of(elems, type) % static_cast<std::size_t>(common) != 0) common /= 2;
    return common;
  }

  /// One way for each engine that cuDNN proposes for a kind.
  std::vector<Way> proposed(const Kind& kind, std::int64_t images) const {
    std::vector<Way> found;
    const auto way = model(kind, images);
    const auto& s = way.shape;
    const bool copies = kind.padded || kind.operands != type;
    const auto own_alignment = copies ? 16 : piece_alignment(images);
    const bool weights_result = direction == Direction::backward_weights;
    // Float weights of 1x1 convolutions are used in place; all other weights are our own aligned copies.
    const auto weight_alignment = !weights_result && weights_used_in_place(shape, type) ? alignment : 16;
    try {
      const auto x = cudnn::activation(1, kind.operands, s.src(), own_alignment);
      const auto w = cudnn::weights(2, weights_result ? kind.gradient : kind.operands, s, weight_alignment);
      const auto y = cudnn::activation(3, kind.operands, s.dst(), own_alignment);
      const auto graph = cudnn::Graph::convolution(target, direction, s, x, w, y);
      std::set<std::string> seen;
      std::map<std::int64_t, int> settings;
      for (const auto mode : {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK}) {
        for (auto& engine : cudnn::propose(graph, mode, 64)) {
          if (std::ssize(found) == (copies ? kEnginesOnCopies : kEngines)) break;
          if (!admitted(engine, options, kind.operands, kind.operands != type)) continue;
          if (!seen.insert(engine.name).second || ++settings[engine.number] > kSettings) continue;
          auto& to = found.emplace_back(model(kind, images));
          to.name += engine.name;
          to.tensor_cores = engine.has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
          to.engine = std::move(engine);
        }
      }
    } catch (const cudnn::Failure& failure) {
      if (!failure.unsupported()) throw;  // this kind does not work; another one may
    }
    return found;
  }
};

}  // namespace

Copies copies_of(const Way& way, Direction direction, DType type) {
  Layout layout;
  Copies out;
  if (direction == Direction::backward_weights)
    out.gradient = layout.add(bytes_of(way.shape.weight_elems(), way.gradient));
  if (way.padded || way.operands != type) {
    out.x = layout.add(bytes_of(way.shape.src().elems(), way.operands));
    out.y = layout.add(bytes_of(way.shape.dst().elems(), way.operands));
  }
  out.bytes = layout.bytes();
  return out;
}

ProductShape data_product(Direction direction, const ConvShape& shape, DType type, std::int64_t alignment) {
  const bool forward = direction == Direction::forward;
  return {.m = shape.n * shape.h * shape.w,
          .n = forward ? shape.c_out : shape.c_in,
          .k = forward ? shape.c_in : shape.c_out,
          .ta = Transpose::no,
          .tb = forward ? Transpose::yes : Transpose::no,
          .type = type,
          .out = type,
          .align_a = alignment,
          .align_b = alignment,
          .align_c = alignment};
}

Ways ways(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape, DType type,
          std::int64_t alignment) {
  Offers offers{target, options, direction, shape, type, alignment};
  if (direction == Direction::backward_weights) {
    offers.add_weight_gradients();
    return offers.take();
  }
  if (shape.is_matrix_product()) offers.add_product(data_product(direction, shape, type, alignment));
  offers.add({"", type, type, false});
  if (type != DType::f32 && PaddedWidths(shape).needed()) offers.add({"padded:", type, type, true});
  return offers.take();
}

}  // namespace seer::dnn
