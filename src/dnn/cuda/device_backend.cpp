// SPDX-License-Identifier: Apache-2.0
// The device implementation: checks its arguments and converts the libraries' errors to ours.
#include "seer/dnn/device_backend.hpp"

#include <cublasLt.h>
#include <cudnn.h>
#include <fmt/format.h>

#include "../describe.hpp"
#include "../padded_widths.hpp"
#include "cublaslt_gemm.hpp"
#include "cudnn_conv.hpp"
#include "seer/base/error.hpp"
#include "seer/device/cuda.hpp"

namespace seer::dnn {
namespace {

int driver_version() {
  int version = 0;
  device::check(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
  return version;
}

cudaDeviceProp present_device() {
  int device = 0;
  device::check(cudaGetDevice(&device), "cudaGetDevice");
  cudaDeviceProp found{};
  device::check(cudaGetDeviceProperties(&found, device), "cudaGetDeviceProperties");
  return found;
}

std::string cudnn_version() {
  const auto version = cudnnGetVersion();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

/// The cuDNN found at run time may differ from the one at build time.
void check_cudnn() {
  const auto found = cudnnGetVersion();
  if (found >= 90000 && found / 10000 >= CUDNN_MAJOR) return;
  throw Error(ExitCode::device,
              fmt::format("found cuDNN {}, but {}.0 or newer is needed", cudnn_version(), std::max(9, CUDNN_MAJOR)),
              "put the cuDNN that seer was built with first in LD_LIBRARY_PATH");
}

using Handle = device::Owned<cudnnHandle_t, cudnnDestroy>;
Handle make_handle() {
  cudnnHandle_t raw = nullptr;
  cudnn::check(cudnnCreate(&raw), "cudnnCreate");
  return Handle(raw);
}

/// Runs calls of cuDNN and converts its errors to ours.
template <class Describe, class Call>
void guard(Describe&& describe, Call&& call) {
  try {
    call();
  } catch (const cudnn::Failure& failure) {
    throw Error(ExitCode::device, fmt::format("{} ({})", failure.what(), describe()), failure.remedy());
  }
}

class DeviceBackend final : public Backend {
 public:
  DeviceBackend(const DeviceOptions& options, const cudaDeviceProp& present)
      : compute_major_(present.major),
        handle_(make_handle()),
        gemm_(options.tf32, options.deterministic, options.workspace_bytes),
        scratch_(device::Space::device),
        conv_(options, fmt::format("{} | cuDNN {} | driver {}", present.name, cudnn_version(), driver_version()),
              handle_.get(), gemm_, scratch_) {}

  void conv(device::Queue& queue, Direction direction, const ConvShape& shape, device::Tensor input, Weights weight,
            device::Tensor output, Accumulate accumulate) override {
    const Told told(queue, direction, shape, work_of(direction, shape, input.dtype, accumulate));
    const bool forward = direction == Direction::forward;
    check(shape, direction, forward ? input : output, forward ? output : input, input.dtype);
    ensure(accumulate == Accumulate::no || (!forward && can_add(shape, input.dtype)), "a gradient that can be added");
    guard([&] { return shape_text(direction, shape); },
          [&] {
            const auto stream = enter(queue);
            if (accumulate == Accumulate::yes)
              conv_.add_to_data(stream, shape, input.dtype, input.data, weight, output.data);
            else
              conv_.run(stream, direction, shape, input.dtype, input.data, weight, output.data);
          });
  }

  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor d_dst,
                             float* d_weight, Accumulate accumulate) override {
    const auto direction = Direction::backward_weights;
    const Told told(queue, direction, shape, work_of(direction, shape, src.dtype));
    check(shape, direction, src, d_dst, src.dtype);
    guard([&] { return shape_text(direction, shape); },
          [&] { conv_.run_weights(enter(queue), shape, src.dtype, src.data, d_dst.data, d_weight, accumulate); });
  }

  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
            Transpose ta, const void* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    const Told told(queue, "product", work_of(m, n, k, type));
    ensure(queue.space == device::Space::device && type != DType::u8,
           "a product on the device, of floating-point type");
    const ProductShape shape{.m = m,
                             .n = n,
                             .k = k,
                             .ta = ta,
                             .tb = tb,
                             .type = type,
                             .out = DType::f32,
                             .add = accumulate == Accumulate::yes,
                             .bias = bias != nullptr,
                             .align_a = alignment_bytes(a),
                             .align_b = alignment_bytes(b),
                             .align_c = alignment_bytes(c),
                             .align_bias = alignment_bytes(bias)};
    guard([&] { return fmt::format("GEMM m {} n {} k {}", m, n, k); },
          [&] {
            const auto stream = enter(queue);
            gemm_.run(stream, shape, a, b, c, bias, scratch_.need(gemm_.workspace_bytes(shape)));
          });
  }

  bool can_add(const ConvShape& shape, DType type) const override { return device_can_add(shape, type); }
  bool supports(DType type) override {
    return type == DType::f32 || (type == DType::bf16 && compute_major_ >= 8) ||
           (type == DType::f16 && compute_major_ >= 7);
  }

  void set_packed_weights_limit(std::size_t bytes) override { conv_.set_packed_limit(bytes); }
  std::size_t held_bytes() const override { return conv_.held_bytes() + scratch_.bytes(); }
  std::string describe() const override {
    const auto blas = cublasLtGetVersion();
    return fmt::format("cuDNN {}, cuBLASLt {}.{}", cudnn_version(), blas / 10000, blas / 100 % 100);
  }

 private:
  /// Returns the queue's stream and sets it on the library's handle. Scratch memory and packed weights serve one queue
  /// at a time: a change of queue waits for the work of the last one.
  cudaStream_t enter(const device::Queue& queue) {
    device::make_current();
    const auto stream = device::stream_of(queue);
    if (entered_ && stream == stream_) return stream;
    if (entered_) device::check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
    cudnn::check(cudnnSetStream(handle_.get(), stream), "cudnnSetStream");
    stream_ = stream;
    entered_ = true;
    return stream;
  }

  static void check(const ConvShape& s, Direction direction, const device::Tensor& src, const device::Tensor& dst,
                    DType type) {
    const auto fits = [&](const device::Tensor& tensor, const device::Shape& wanted) {
      return tensor.shape == wanted && tensor.dtype == type && type != DType::u8 &&
             tensor.space == device::Space::device;
    };
    if (!fits(src, s.src()) || !fits(dst, s.dst())) {
      const auto text = [](const device::Shape& t) { return fmt::format("[{}, {}, {}, {}]", t.n, t.h, t.w, t.c); };
      throw Error(
          ExitCode::internal,
          fmt::format("{}: expected {} and {} of one floating-point type on the device, found {} and {}, another "
                      "type or other memory",
                      title(direction), text(s.src()), text(s.dst()), text(src.shape), text(dst.shape)));
    }
    // cuDNN would infer the number of groups from the ratio of the channels.
    if (s.groups < 1 || s.c_in % s.groups != 0 || s.c_out % s.groups != 0)
      throw Error(ExitCode::device, fmt::format("{}: the groups do not divide the channels", shape_text(direction, s)));
  }

  int compute_major_;
  Handle handle_;
  CublasltGemm gemm_;
  Scratch scratch_;
  CudnnConv conv_;
  cudaStream_t stream_ = nullptr;
  bool entered_ = false;
};

}  // namespace

std::unique_ptr<Backend> make_device_backend(DeviceOptions options) {
  check_cudnn();  // before looking for a device: an old library fails in confusing ways
  device::make_current();
  std::unique_ptr<Backend> backend;
  guard([] { return "creating the device's back end"; },
        [&] { backend = std::make_unique<DeviceBackend>(options, present_device()); });
  backend->set_packed_weights_limit(options.packed_weights_bytes);
  return backend;
}

}  // namespace seer::dnn
