// SPDX-License-Identifier: Apache-2.0
#include "reorder.hpp"

#include "cublaslt_gemm.hpp"
#include "seer/device/cuda.hpp"

namespace seer::dnn {
namespace {

/// A tensor descriptor of cuDNN's older API: the graph's engines copy only within one order.
class TensorDescriptor {
 public:
  TensorDescriptor(const ConvShape& s, cudnn::Order order) {
    const auto spec = cudnn::weights(0, DType::f32, s, order);
    const auto dim = [&](std::size_t i) { return static_cast<int>(spec.dims[i]); };
    const auto stride = [&](std::size_t i) { return static_cast<int>(spec.strides[i]); };
    cudnn::check(cudnnCreateTensorDescriptor(&raw_), "cudnnCreateTensorDescriptor");
    const auto status = cudnnSetTensor4dDescriptorEx(raw_, CUDNN_DATA_FLOAT, dim(0), dim(1), dim(2), dim(3), stride(0),
                                                     stride(1), stride(2), stride(3));
    if (status == CUDNN_STATUS_SUCCESS) return;
    cudnnDestroyTensorDescriptor(raw_);
    cudnn::check(status, "cudnnSetTensor4dDescriptorEx");
  }
  ~TensorDescriptor() { cudnnDestroyTensorDescriptor(raw_); }
  TensorDescriptor(const TensorDescriptor&) = delete;
  TensorDescriptor& operator=(const TensorDescriptor&) = delete;
  cudnnTensorDescriptor_t raw() const { return raw_; }

 private:
  cudnnTensorDescriptor_t raw_ = nullptr;
};

/// Copies the weights of all groups; each group has `from_rows` rows in the source and `to_rows` in the destination.
void copy_groups(cudaStream_t stream, std::int64_t groups, std::size_t width, std::size_t rows, const void* from,
                 std::size_t from_pitch, std::size_t from_rows, void* to, std::size_t to_pitch, std::size_t to_rows) {
  cudaMemcpy3DParms copy{};
  copy.srcPtr = {const_cast<void*>(from), from_pitch, width, from_rows};
  copy.dstPtr = {to, to_pitch, width, to_rows};
  copy.extent = {width, rows, static_cast<std::size_t>(groups)};
  copy.kind = cudaMemcpyDeviceToDevice;
  device::check(cudaMemcpy3DAsync(&copy, stream), "cudaMemcpy3DAsync");
}

std::size_t bytes(std::int64_t elems, DType type) {
  return static_cast<std::size_t>(elems) * dtype_bytes(type);
}

}  // namespace

void Reorder::order(const ConvShape& s, const float* from, cudnn::Order from_order, float* to, cudnn::Order to_order,
                    Accumulate accumulate) {
  const TensorDescriptor x(s, from_order), y(s, to_order);
  const float alpha = 1, beta = accumulate == Accumulate::yes ? 1 : 0;
  cudnn::check(cudnnTransformTensor(handle_, &alpha, x.raw(), from, &beta, y.raw(), to), "cudnnTransformTensor");
}

void Reorder::cast(const std::array<std::int64_t, 4>& dims, DType from_type, const void* from, DType to_type,
                   void* to) {
  const auto alignment = alignment_bytes(from);
  auto known = casts_.find({dims, from_type, to_type, alignment});
  if (known == casts_.end()) {
    const auto [n, c, h, w] = dims;
    const auto x = cudnn::activation(1, from_type, {n, h, w, c}, alignment);
    const auto y = cudnn::activation(2, to_type, {n, h, w, c});
    auto plan = cudnn::first_plan(cudnn::Graph::copy({.handle = handle_}, x, y), std::size_t{64} << 20);
    known = casts_.emplace(CastKey{dims, from_type, to_type, alignment}, std::move(plan)).first;
  }
  const auto& plan = known->second;
  void* workspace = plan.workspace_bytes() > 0 ? scratch_.need(plan.workspace_bytes()) : nullptr;
  plan.run(handle_, {{1, from}, {2, to}}, workspace);
}

void Reorder::pad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                  void* to) {
  device::check(cudaMemcpy2DAsync(to, padded, from, width, width, rows, cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpy2DAsync");
  if (padded == width) return;
  device::check(cudaMemset2DAsync(static_cast<char*>(to) + width, padded, 0, padded - width, rows, stream),
                "cudaMemset2DAsync");
}

void Reorder::unpad(cudaStream_t stream, std::size_t rows, std::size_t width, std::size_t padded, const void* from,
                    void* to) {
  device::check(cudaMemcpy2DAsync(to, width, from, padded, width, rows, cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpy2DAsync");
}

void Reorder::pad_weights(cudaStream_t stream, const PaddedWidths& p, std::int64_t kernel_area, DType type,
                          const void* from, void* to) {
  const auto rows = static_cast<std::size_t>(p.out * kernel_area);
  const auto padded_rows = static_cast<std::size_t>(p.padded_out * kernel_area);
  const auto width = bytes(p.in, type), padded_width = bytes(p.padded_in, type);
  device::check(cudaMemsetAsync(to, 0, static_cast<std::size_t>(p.groups) * padded_rows * padded_width, stream),
                "cudaMemsetAsync");
  copy_groups(stream, p.groups, width, rows, from, width, rows, to, padded_width, padded_rows);
}

void Reorder::unpad_weights(cudaStream_t stream, const PaddedWidths& p, std::int64_t kernel_area, DType type,
                            const void* from, void* to) {
  const auto rows = static_cast<std::size_t>(p.out * kernel_area);
  const auto padded_rows = static_cast<std::size_t>(p.padded_out * kernel_area);
  const auto width = bytes(p.in, type), padded_width = bytes(p.padded_in, type);
  copy_groups(stream, p.groups, width, rows, from, padded_width, padded_rows, to, width, rows);
}

}  // namespace seer::dnn
