// SPDX-License-Identifier: Apache-2.0
#include "onednn.hpp"

#include <algorithm>

namespace seer::dnn {

using dnnl::memory;

namespace {

constexpr auto kFloat = memory::data_type::f32;

// What differs with the version of oneDNN: 2.x makes a primitive descriptor from an operation descriptor, 3.x from the
// arguments directly.
template <class Primitive, class... Arguments>
auto forward_desc(const dnnl::engine& engine, const dnnl::primitive_attr& attr, const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine, arguments..., attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), attr, engine);
#endif
}
template <class Primitive, class Forward, class... Arguments>
auto backward_desc(const dnnl::engine& engine, const dnnl::primitive_attr& attr, const Forward& forward,
                   const Arguments&... arguments) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine, arguments..., forward, attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(arguments...), attr, engine, forward);
#endif
}

memory::data_type data_type(DType type) {
  return type == DType::f32    ? kFloat
         : type == DType::bf16 ? memory::data_type::bf16
         : type == DType::f16  ? memory::data_type::f16
                               : memory::data_type::undef;
}

dnnl::primitive_attr attributes(bool add) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attr.set_post_ops(sum);
  }
  return attr;
}

memory::desc weights_desc(const ConvShape& s, memory::data_type type, bool plain) {
  using Tag = memory::format_tag;
  if (s.groups == 1) return {{s.c_out, s.c_in, s.kernel, s.kernel}, type, plain ? Tag::oihw : Tag::any};
  return {{s.groups, s.c_out / s.groups, s.c_in / s.groups, s.kernel, s.kernel}, type, plain ? Tag::goihw : Tag::any};
}

dnnl::primitive_desc_base conv_desc(const dnnl::engine& engine, Direction direction, const ConvShape& s, DType type) {
  constexpr auto kDirect = dnnl::algorithm::convolution_direct;
  const auto data = data_type(type);
  const memory::desc src{{s.n, s.c_in, s.h, s.w}, data, memory::format_tag::nhwc};
  const memory::desc dst{{s.n, s.c_out, s.out_h(), s.out_w()}, data, memory::format_tag::nhwc};
  // Weights have the activations' type, their gradient is float.
  const auto weights = weights_desc(s, data, false), d_weights = weights_desc(s, kFloat, false);
  const memory::dims strides{s.stride, s.stride}, pads{s.pad, s.pad};
  const auto attr = attributes(false);
  const auto forward = forward_desc<dnnl::convolution_forward>(engine, attr, dnnl::prop_kind::forward_training, kDirect,
                                                               src, weights, dst, strides, pads, pads);
  if (direction == Direction::forward) return forward;
  if (direction == Direction::backward_data) {
    return backward_desc<dnnl::convolution_backward_data>(engine, attr, forward, kDirect, src, weights, dst, strides,
                                                          pads, pads);
  }
  return backward_desc<dnnl::convolution_backward_weights>(engine, attr, forward, kDirect, src, d_weights, dst, strides,
                                                           pads, pads);
}

}  // namespace

bool has_bf16_matrix_units() {
  constexpr unsigned kAmx = dnnl_cpu_isa_avx512_core_amx;  // a set of bits, of which each higher level has all
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kAmx) == kAmx;
}

Onednn::Primitive Onednn::make(const dnnl::primitive_desc_base& desc, std::initializer_list<int> arguments) const {
  Primitive made;
  if (!plans()) made.run = dnnl::primitive(desc.get());
  for (const int argument : arguments)
    made.arguments.emplace(argument, memory_of(desc.query_md(dnnl::query::exec_arg_md, argument)));
  const auto scratch = desc.query_md(dnnl::query::scratchpad_md);
  made.arguments.emplace(DNNL_ARG_SCRATCHPAD, memory_of(scratch));
  made.scratch_bytes = scratch.get_size();
  return made;
}

void Onednn::execute(Primitive& primitive) {
  void* const scratch = scratch_.need(primitive.scratch_bytes);
  if (plans()) return;
  if (primitive.scratch_bytes > 0) primitive.arguments.at(DNNL_ARG_SCRATCHPAD).set_data_handle(scratch);
  primitive.run.execute(stream_, primitive.arguments);
  stream_.wait();
}

OnednnConv::Plan& OnednnConv::plan(Direction direction, const ConvShape& shape, DType type) {
  const Key key{shape, direction, type};
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  return plans_.emplace(key, make_plan(direction, shape, type)).first->second;
}

OnednnConv::Plan OnednnConv::make_plan(Direction direction, const ConvShape& shape, DType type) {
  const int src = direction == Direction::backward_data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC;
  const int weights = direction == Direction::backward_weights ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS;
  const int dst = direction == Direction::forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST;
  Plan plan;
  plan.primitive = make(conv_desc(engine_, direction, shape, type), {src, weights, dst});
  plan.src = plan.primitive.arguments.at(src);
  plan.weights = plan.primitive.arguments.at(weights);
  plan.dst = plan.primitive.arguments.at(dst);
  const auto wanted = plan.weights.get_desc(), plain = weights_desc(shape, kFloat, true);
  plan.weights_bytes = wanted.get_size();
  plan.weights_are_plain = plain == wanted;
  plan.plain = memory_of(plain);
  if (!plan.weights_are_plain && !plans()) {
    if (direction == Direction::backward_weights) {
      plan.reorder = dnnl::reorder(plan.weights, plan.plain);
      dnnl::post_ops sum;
      sum.append_sum(1.0F);
      dnnl::primitive_attr adding;
      adding.set_post_ops(sum);
      plan.reorder_add = dnnl::reorder({engine_, wanted, engine_, plain, adding});
    } else {
      plan.reorder = dnnl::reorder(plan.plain, plan.weights);
    }
  }
  const auto layout = std::find(layouts_.begin(), layouts_.end(), wanted);
  plan.layout = static_cast<int>(layout - layouts_.begin());
  if (layout == layouts_.end()) layouts_.push_back(wanted);
  return plan;
}

void OnednnConv::execute(Plan& plan, void* src, void* weights, void* dst) {
  if (!plans()) {
    // Setting a pointer rewrites the zeros of padded channels, so skip it if the pointer is the same.
    if (plan.weights.get_data_handle() != weights) plan.weights.set_data_handle(weights);
    plan.src.set_data_handle(src);
    plan.dst.set_data_handle(dst);
  }
  Onednn::execute(plan.primitive);
}

void OnednnConv::run(Direction direction, const ConvShape& shape, DType type, void* input, Weights weights,
                     PackedWeights& packed, void* output) {
  Plan& p = plan(direction, shape, type);
  void* own = const_cast<void*>(weights.data);
  if (!p.weights_are_plain) {
    own = packed.get(weights, p.layout, p.weights_bytes, [&](void* place) {
      p.plain.set_data_handle(const_cast<void*>(weights.data));
      p.weights.set_data_handle(place);
      p.reorder.execute(stream_, p.plain, p.weights);
      stream_.wait();
    });
  }
  const bool forward = direction == Direction::forward;
  execute(p, forward ? input : output, own, forward ? output : input);
}

void OnednnConv::run_weights(const ConvShape& shape, DType type, void* src, void* d_dst, float* d_weight,
                             Accumulate accumulate) {
  Plan& p = plan(Direction::backward_weights, shape, type);
  const bool add = accumulate == Accumulate::yes;
  // The primitive overwrites its output, so it writes to scratch unless the caller wants plain weights overwritten.
  void* own = p.weights_are_plain && !add ? d_weight : blocked_.need(p.weights_bytes);
  execute(p, src, own, d_dst);
  if (plans()) return;
  if (!p.weights_are_plain) {
    p.plain.set_data_handle(d_weight);
    (add ? p.reorder_add : p.reorder).execute(stream_, p.weights, p.plain);
    stream_.wait();
  } else if (add) {
    const auto* values = static_cast<const float*>(own);
#pragma omp parallel for simd
    for (std::int64_t i = 0; i < shape.weight_elems(); ++i) d_weight[i] += values[i];
  }
}

Onednn::Primitive OnednnGemm::make_plan(const GemmShape& s) const {
  // op(x) [rows, columns] of a dense row-major x.
  const auto operand = [](std::int64_t rows, std::int64_t columns, DType type, Transpose transpose) {
    const auto tag = transpose == Transpose::yes ? memory::format_tag::ba : memory::format_tag::ab;
    return memory::desc({rows, columns}, data_type(type), tag);
  };
  return make(forward_desc<dnnl::matmul>(engine_, attributes(s.add), operand(s.m, s.k, s.type, s.ta),
                                         operand(s.k, s.n, s.type, s.tb), operand(s.m, s.n, DType::f32, Transpose::no)),
              {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST});
}

void OnednnGemm::run(const GemmShape& shape, const void* a, const void* b, float* c) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) found = plans_.emplace(shape, make_plan(shape)).first;
  auto& arguments = found->second.arguments;
  if (!plans()) {
    arguments.at(DNNL_ARG_SRC).set_data_handle(const_cast<void*>(a));
    arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(const_cast<void*>(b));
    arguments.at(DNNL_ARG_DST).set_data_handle(c);
  }
  execute(found->second);
}

}  // namespace seer::dnn
