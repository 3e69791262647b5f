// SPDX-License-Identifier: Apache-2.0
#include "onednn_gemm.hpp"

namespace seer::dnn {

using dnnl::memory;

namespace {

/// Describes op(x) [rows, columns] for a dense row-major x.
memory::desc operand(std::int64_t rows, std::int64_t columns, DType type, Transpose transpose) {
  return {{rows, columns},
          shim::data_type(type),
          transpose == Transpose::yes ? memory::format_tag::ba : memory::format_tag::ab};
}

}  // namespace

std::size_t OnednnGemm::ShapeHash::operator()(const GemmShape& s) const {
  std::size_t hash = static_cast<std::size_t>(s.type);
  for (const bool flag : {s.ta == Transpose::yes, s.tb == Transpose::yes, s.add}) hash = hash * 2 + (flag ? 1 : 0);
  for (const auto value : {s.m, s.n, s.k}) hash = hash * 1000003 + static_cast<std::size_t>(value);
  return hash;
}

OnednnGemm::OnednnGemm(device::Space space)
    : space_(space), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_), library_scratch_(space) {}

OnednnGemm::Plan OnednnGemm::make_plan(const GemmShape& s) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (s.add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attr.set_post_ops(sum);
  }
  const auto a = operand(s.m, s.k, s.type, s.ta), b = operand(s.k, s.n, s.type, s.tb);
  const auto c = operand(s.m, s.n, DType::f32, Transpose::no);
  const auto pd = shim::matmul(engine_, a, b, c, attr);
  Plan plan;
  if (space_ != device::Space::planned) plan.primitive = dnnl::matmul(pd);
  plan.a = memory(a, engine_, DNNL_MEMORY_NONE);
  plan.b = memory(b, engine_, DNNL_MEMORY_NONE);
  plan.c = memory(c, engine_, DNNL_MEMORY_NONE);
  plan.scratch = memory(pd.scratchpad_desc(), engine_, DNNL_MEMORY_NONE);
  plan.scratch_bytes = pd.scratchpad_desc().get_size();
  plan.arguments = {
      {DNNL_ARG_SRC, plan.a}, {DNNL_ARG_WEIGHTS, plan.b}, {DNNL_ARG_DST, plan.c}, {DNNL_ARG_SCRATCHPAD, plan.scratch}};
  return plan;
}

bool OnednnGemm::can_run(const GemmShape& shape) {
  try {
    make_plan(shape);
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_unimplemented || error.status == dnnl_invalid_arguments) return false;
    throw;
  }
  return true;
}

void OnednnGemm::run(const GemmShape& shape, const void* a, const void* b, float* c) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) found = plans_.emplace(shape, make_plan(shape)).first;
  Plan& p = found->second;
  if (space_ == device::Space::planned) {
    library_scratch_.need(p.scratch_bytes);
    return;
  }
  p.a.set_data_handle(const_cast<void*>(a));
  p.b.set_data_handle(const_cast<void*>(b));
  p.c.set_data_handle(c);
  if (p.scratch_bytes > 0) p.scratch.set_data_handle(library_scratch_.need(p.scratch_bytes));
  p.primitive.execute(stream_, p.arguments);
  stream_.wait();
}

}  // namespace seer::dnn
