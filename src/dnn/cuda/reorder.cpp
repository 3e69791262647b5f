// SPDX-License-Identifier: Apache-2.0
#include "reorder.hpp"

#include "cublaslt_gemm.hpp"
#include "seer/device/cuda.hpp"

namespace seer::dnn {
namespace {

using TensorDescriptor = device::Owned<cudnnTensorDescriptor_t, cudnnDestroyTensorDescriptor>;

/// A tensor descriptor of cuDNN's older API: the graph's engines copy only within one order.
TensorDescriptor descriptor(const ConvShape& s, cudnn::Order order) {
  const auto spec = cudnn::weights(0, DType::f32, s, order);
  const auto dim = [&](std::size_t i) { return static_cast<int>(spec.dims[i]); };
  const auto stride = [&](std::size_t i) { return static_cast<int>(spec.strides[i]); };
  cudnnTensorDescriptor_t raw = nullptr;
  cudnn::check(cudnnCreateTensorDescriptor(&raw), "cudnnCreateTensorDescriptor");
  TensorDescriptor made(raw);
  cudnn::check(cudnnSetTensor4dDescriptorEx(raw, CUDNN_DATA_FLOAT, dim(0), dim(1), dim(2), dim(3), stride(0), stride(1),
                                            stride(2), stride(3)),
               "cudnnSetTensor4dDescriptorEx");
  return made;
}

}  // namespace

void Reorder::order(const ConvShape& s, const float* from, cudnn::Order from_order, float* to, cudnn::Order to_order,
                    Accumulate accumulate) {
  const auto x = descriptor(s, from_order), y = descriptor(s, to_order);
  const float alpha = 1, beta = accumulate == Accumulate::yes ? 1 : 0;
  cudnn::check(cudnnTransformTensor(handle_, &alpha, x.get(), from, &beta, y.get(), to), "cudnnTransformTensor");
}

void Reorder::cast(const device::Shape& shape, DType from_type, const void* from, DType to_type, void* to) {
  const CastKey key{shape, from_type, to_type, alignment_bytes(from)};
  auto known = casts_.find(key);
  if (known == casts_.end()) {
    const auto x = cudnn::activation(1, from_type, shape, alignment_bytes(from));
    const auto y = cudnn::activation(2, to_type, shape);
    auto plan = cudnn::first_plan(cudnn::Graph::copy({.handle = handle_}, x, y), std::size_t{64} << 20);
    known = casts_.emplace(key, std::move(plan)).first;
  }
  const auto& plan = known->second;
  void* workspace = plan.workspace_bytes() > 0 ? scratch_.need(plan.workspace_bytes()) : nullptr;
  plan.run(handle_, {{1, from}, {2, to}}, workspace);
}

void Reorder::pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                  void* to, Padding padding) {
  const bool add = padding == Padding::add;
  device::check(cudaMemcpy2DAsync(to, add ? padded : width, from, add ? width : padded, width, rows,
                                  cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpy2DAsync");
  if (!add || padded == width) return;
  device::check(cudaMemset2DAsync(static_cast<char*>(to) + width, padded, 0, padded - width, rows, stream),
                "cudaMemset2DAsync");
}

void Reorder::pad_weights(cudaStream_t stream, const PaddedWidths& p, std::int64_t kernel_area, DType type,
                          const void* from, void* to, Padding padding) {
  const bool add = padding == Padding::add;
  const auto groups = static_cast<std::size_t>(p.groups), rows = static_cast<std::size_t>(p.out * kernel_area);
  const auto padded_rows = static_cast<std::size_t>(p.padded_out * kernel_area);
  const auto width = bytes_of(p.in, type), padded_width = bytes_of(p.padded_in, type);
  if (add) device::check(cudaMemsetAsync(to, 0, groups * padded_rows * padded_width, stream), "cudaMemsetAsync");
  cudaMemcpy3DParms copy{};
  copy.srcPtr = {const_cast<void*>(from), add ? width : padded_width, width, add ? rows : padded_rows};
  copy.dstPtr = {to, add ? padded_width : width, width, add ? padded_rows : rows};
  copy.extent = {width, rows, groups};
  copy.kind = cudaMemcpyDeviceToDevice;
  device::check(cudaMemcpy3DAsync(&copy, stream), "cudaMemcpy3DAsync");
}

}  // namespace seer::dnn
