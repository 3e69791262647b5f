// SPDX-License-Identifier: Apache-2.0
#include "onednn_conv.hpp"

#include <algorithm>

namespace seer::dnn {

using dnnl::memory;

namespace {

constexpr auto kFloat = memory::data_type::f32;

memory::desc plain_weights(const ConvShape& s) {
  if (s.groups == 1) return {{s.c_out, s.c_in, s.kernel, s.kernel}, kFloat, memory::format_tag::oihw};
  return {{s.groups, s.c_out / s.groups, s.c_in / s.groups, s.kernel, s.kernel}, kFloat, memory::format_tag::goihw};
}

memory::desc any_weights(const ConvShape& s, memory::data_type type) {
  if (s.groups == 1) return {{s.c_out, s.c_in, s.kernel, s.kernel}, type, memory::format_tag::any};
  return {{s.groups, s.c_out / s.groups, s.c_in / s.groups, s.kernel, s.kernel}, type, memory::format_tag::any};
}

/// Weights have the activations' type, their gradient is float.
shim::ConvDescs describe(Direction direction, const ConvShape& s, DType type) {
  const auto data = shim::data_type(type);
  return {.src = {{s.n, s.c_in, s.h, s.w}, data, memory::format_tag::nhwc},
          .weights = any_weights(s, direction == Direction::backward_weights ? kFloat : data),
          .dst = {{s.n, s.c_out, s.out_h(), s.out_w()}, data, memory::format_tag::nhwc},
          .strides = {s.stride, s.stride},
          .pads = {s.pad, s.pad},
          .forward_weights = any_weights(s, data)};
}

}  // namespace

std::size_t OnednnConv::KeyHash::operator()(const Key& key) const {
  const ConvShape& s = key.shape;
  std::size_t hash = static_cast<std::size_t>(key.direction) * 8 + static_cast<std::size_t>(key.type);
  for (const auto value : {s.n, s.h, s.w, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups}) {
    hash = hash * 1000003 + static_cast<std::size_t>(value);
  }
  return hash;
}

OnednnConv::OnednnConv(device::Space space)
    : space_(space), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), library_scratch_(space), blocked_(space) {}

OnednnConv::Plan& OnednnConv::plan(Direction direction, const ConvShape& shape, DType type) {
  const Key key{shape, direction, type};
  if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
  return plans_.emplace(key, make_plan(direction, shape, type)).first->second;
}

bool OnednnConv::can_run(Direction direction, const ConvShape& shape, DType type) {
  try {
    make_plan(direction, shape, type);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented || error.status == dnnl_invalid_arguments) return false;
    throw;
  }
  return true;
}

OnednnConv::Plan OnednnConv::make_plan(Direction direction, const ConvShape& shape, DType type) {
  Plan plan;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto descs = describe(direction, shape, type);
  const auto fill = [&](const auto& pd, const auto& src, const auto& weights, const auto& dst) {
    plan.src = memory(src, engine_, DNNL_MEMORY_NONE);
    plan.weights = memory(weights, engine_, DNNL_MEMORY_NONE);
    plan.dst = memory(dst, engine_, DNNL_MEMORY_NONE);
    plan.scratch = memory(pd.scratchpad_desc(), engine_, DNNL_MEMORY_NONE);
    plan.scratch_bytes = pd.scratchpad_desc().get_size();
    plan.weights_bytes = weights.get_size();
    plan.implementation = pd.impl_info_str();
  };
  switch (direction) {
    case Direction::forward: {
      const auto pd = shim::forward(engine_, descs, attr);
      if (space_ != device::Space::planned) plan.primitive = shim::Forward(pd);
      fill(pd, pd.src_desc(), pd.weights_desc(), pd.dst_desc());
      plan.arguments = {{DNNL_ARG_SRC, plan.src}, {DNNL_ARG_WEIGHTS, plan.weights}, {DNNL_ARG_DST, plan.dst}};
      break;
    }
    case Direction::backward_data: {
      const auto pd = shim::backward_data(engine_, descs, attr);
      if (space_ != device::Space::planned) plan.primitive = shim::BackwardData(pd);
      fill(pd, pd.diff_src_desc(), pd.weights_desc(), pd.diff_dst_desc());
      plan.arguments = {{DNNL_ARG_DIFF_SRC, plan.src}, {DNNL_ARG_WEIGHTS, plan.weights}, {DNNL_ARG_DIFF_DST, plan.dst}};
      break;
    }
    case Direction::backward_weights: {
      const auto pd = shim::backward_weights(engine_, descs, attr);
      if (space_ != device::Space::planned) plan.primitive = shim::BackwardWeights(pd);
      fill(pd, pd.src_desc(), pd.diff_weights_desc(), pd.diff_dst_desc());
      plan.arguments = {{DNNL_ARG_SRC, plan.src}, {DNNL_ARG_DIFF_WEIGHTS, plan.weights}, {DNNL_ARG_DIFF_DST, plan.dst}};
      break;
    }
  }
  plan.arguments.emplace(DNNL_ARG_SCRATCHPAD, plan.scratch);

  const auto plain = plain_weights(shape);
  const auto wanted = plan.weights.get_desc();
  plan.weights_are_plain = plain == wanted;
  plan.plain = memory(plain, engine_, DNNL_MEMORY_NONE);
  if (!plan.weights_are_plain && space_ != device::Space::planned) {
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

bool OnednnConv::only_plans(const Plan& plan) {
  if (space_ == device::Space::planned) library_scratch_.need(plan.scratch_bytes);
  return space_ == device::Space::planned;
}

void OnednnConv::execute(Plan& plan) {
  if (plan.scratch_bytes > 0) plan.scratch.set_data_handle(library_scratch_.need(plan.scratch_bytes));
  plan.primitive.execute(stream_, plan.arguments);
  stream_.wait();
}

void OnednnConv::run(Direction direction, const ConvShape& shape, DType type, void* input, Weights weights,
                     PackedWeights& packed, void* output) {
  Plan& p = plan(direction, shape, type);
  void* own = const_cast<void*>(weights.data);
  if (!p.weights_are_plain) {
    own = packed.get(weights, p.layout, p.weights_bytes, [&](void* memory) {
      p.plain.set_data_handle(const_cast<void*>(weights.data));
      p.weights.set_data_handle(memory);
      p.reorder.execute(stream_, p.plain, p.weights);
      stream_.wait();
    });
  }
  if (only_plans(p)) return;
  // Setting a pointer rewrites the zeros of padded channels, so skip it if the pointer is the same.
  if (p.weights.get_data_handle() != own) p.weights.set_data_handle(own);
  p.src.set_data_handle(direction == Direction::forward ? input : output);
  p.dst.set_data_handle(direction == Direction::forward ? output : input);
  execute(p);
}

void OnednnConv::run_weights(const ConvShape& shape, DType type, void* src, void* d_dst, float* d_weight,
                             Accumulate accumulate) {
  Plan& p = plan(Direction::backward_weights, shape, type);
  const bool add = accumulate == Accumulate::yes;
  // The primitive overwrites its output, so it writes to scratch unless the caller wants plain weights overwritten.
  void* own = p.weights_are_plain && !add ? d_weight : blocked_.need(p.weights_bytes);
  if (only_plans(p)) return;
  if (p.weights.get_data_handle() != own) p.weights.set_data_handle(own);
  p.src.set_data_handle(src);
  p.dst.set_data_handle(d_dst);
  execute(p);
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

std::string OnednnConv::implementation(Direction direction, const ConvShape& shape, DType type) {
  return plan(direction, shape, type).implementation;
}

}  // namespace seer::dnn
