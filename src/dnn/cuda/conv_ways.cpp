// SPDX-License-Identifier: Apache-2.0
// What can be chosen from: the engines of each way, and the scratch memory of its copies.
#include <algorithm>

#include "cudnn_conv.hpp"

namespace seer::dnn {
namespace {

using cudnn::EngineConfig;

/// Engines of one way that are tried. Its best few proposals are all close; making a plan can take a compiler's time.
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

/// `exact`: tensor cores round the operands to nothing that they are not already.
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

/// Adds a way for each engine proposed for what `model` says.
void add_engines(std::vector<Way>& to, cudnn::Target target, const DeviceOptions& options, Direction direction,
                 const Way& model, std::int64_t alignment, std::int64_t weight_alignment, bool exact) {
  const auto& s = model.shape;
  std::vector<std::string> seen;
  try {
    const auto x = cudnn::activation(1, model.operands, {s.n, s.h, s.w, s.c_in}, alignment);
    const auto w = cudnn::weights(2, direction == Direction::backward_weights ? model.gradient : model.operands, s,
                                  cudnn::Order::krsc, weight_alignment);
    const auto y = cudnn::activation(3, model.operands, {s.n, s.out_h(), s.out_w(), s.c_out}, alignment);
    const auto graph = cudnn::Graph::convolution(target, direction, s, x, w, y);
    for (const auto& [mode, at_most] :
         {std::pair{CUDNN_HEUR_MODE_A, kProposals}, {CUDNN_HEUR_MODE_FALLBACK, kFallbacks}}) {
      std::int64_t taken = 0;
      for (auto& engine : cudnn::propose(graph, mode, 32)) {
        if (taken == at_most) break;
        if (!admitted(engine, options, model.operands, exact)) continue;
        if (std::find(seen.begin(), seen.end(), engine.name) != seen.end()) continue;
        seen.push_back(engine.name);
        ++taken;
        Way way;
        way.name = model.name + engine.name;
        way.shape = model.shape;
        way.operands = model.operands;
        way.gradient = model.gradient;
        way.padded = model.padded;
        way.workspace_bytes = model.workspace_bytes;
        way.engine = std::move(engine);
        to.push_back(std::move(way));
      }
    }
  } catch (const cudnn::Failure& failure) {
    if (!failure.unsupported()) throw;  // this way cannot be gone; another one may
  }
}

Way model(const char* name, const ConvShape& shape, DType operands, DType gradient) {
  Way way;
  way.name = name;
  way.shape = shape;
  way.operands = operands;
  way.gradient = gradient;
  return way;
}

/// Scratch memory of the gradient of the weights: as the engine leaves it, without padding, as float.
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

/// As many images as leave half of the workspace to the engine; 0 where not one does.
std::int64_t widened_images(const ConvShape& s, std::size_t limit_bytes) {
  for (std::int64_t images = s.n; images > 0; --images) {
    if (s.n % images != 0) continue;  // one plan serves all calls
    ConvShape part = s;
    part.n = images;
    if (operand_bytes(part, DType::f32) <= limit_bytes / 2) return images;
  }
  return 0;
}

void add_weight_gradients(std::vector<Way>& all, cudnn::Target target, const DeviceOptions& options,
                          const ConvShape& shape, DType type, std::int64_t alignment) {
  const auto direction = Direction::backward_weights;
  const PaddedWidths widths(shape);
  const auto add = [&](const char* name, DType operands, DType gradient, bool padded, std::int64_t images) {
    Way way = model(name, padded ? widths.shape(shape) : shape, operands, gradient);
    way.padded = padded;
    way.shape.n = images;
    way.workspace_bytes = gradient_bytes(shape, way);
    const bool copies = padded || operands != type;
    if (copies) way.workspace_bytes += operand_bytes(way.shape, operands);
    if (way.workspace_bytes > options.workspace_bytes) return;
    add_engines(all, target, options, direction, way, copies ? 16 : alignment, 16, operands != type);
  };
  add("", type, DType::f32, false, shape.n);
  if (type == DType::f32) return;
  if (widths.needed()) add("padded:", type, DType::f32, true, shape.n);
  if (options.float_weight_gradients) {
    const auto images = widened_images(shape, options.workspace_bytes);
    if (images > 0) add("wide:", DType::f32, DType::f32, false, images);
    if (!all.empty()) return;
  }
  add("rounded:", type, type, false, shape.n);
  if (widths.needed()) add("padded_rounded:", type, type, true, shape.n);
}

}  // namespace

bool is_matrix_product(const ConvShape& s) {
  return s.kernel == 1 && s.stride == 1 && s.pad == 0 && s.groups == 1;
}

std::vector<Way> ways(cudnn::Target target, const DeviceOptions& options, Direction direction, const ConvShape& shape,
                      DType type, std::int64_t alignment) {
  std::vector<Way> all;
  if (direction == Direction::backward_weights) {
    add_weight_gradients(all, target, options, shape, type, alignment);
    return all;
  }
  if (is_matrix_product(shape)) {
    const bool forward = direction == Direction::forward;
    Way way = model("product", shape, type, type);
    way.product = ProductShape{.m = shape.n * shape.h * shape.w,
                               .n = forward ? shape.c_out : shape.c_in,
                               .k = forward ? shape.c_in : shape.c_out,
                               .ta = Transpose::no,
                               .tb = forward ? Transpose::yes : Transpose::no,
                               .type = type,
                               .out = type,
                               .align_a = alignment,
                               .align_b = alignment,
                               .align_c = alignment};
    all.push_back(std::move(way));
  }
  // Float weights of 1x1 convolutions are used where they are; all others are our copies, on good boundaries.
  const std::int64_t weight_alignment = type == DType::f32 && shape.kernel == 1 ? alignment : 16;
  add_engines(all, target, options, direction, model("", shape, type, type), alignment, weight_alignment, false);
  const PaddedWidths widths(shape);
  if (type != DType::f32 && widths.needed()) {
    Way way = model("padded:", widths.shape(shape), type, type);
    way.padded = true;
    way.workspace_bytes = operand_bytes(way.shape, type);
    if (way.workspace_bytes <= options.workspace_bytes) {
      add_engines(all, target, options, direction, way, 16, 16, false);
    }
  }
  return all;
}

}  // namespace seer::dnn
