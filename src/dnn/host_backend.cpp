// SPDX-License-Identifier: Apache-2.0
// The host's body: says which of oneDNN's primitives, oneDNN's GEMM and our own direct kernels runs a convolution.
// The choice depends on the shape alone, never on a timing, so that a resumed run repeats the same bits.
#include <fmt/format.h>
#include <dnnl.hpp>

#include <algorithm>

#include "direct_conv.hpp"
#include "onednn_conv.hpp"
#include "packed_weights.hpp"
#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {

namespace {

const char* name(Direction direction) {
  switch (direction) {
    case Direction::forward:
      return "convolution forward";
    case Direction::backward_data:
      return "convolution backward to data";
    default:
      return "convolution backward to weights";
  }
}

/// Runs a library call and turns its errors into ours.
template <class Describe, class Call>
void guard(Describe&& describe, Call&& call) {
  try {
    call();
  } catch (const dnnl::error& error) {
    throw Error(ExitCode::device,
                fmt::format("oneDNN: {} ({}) in {}", shim::status_name(error.status), error.what(), describe()),
                error.status == dnnl_out_of_memory ? "a smaller batch or more memory per rank" : "");
  }
}

void check(const device::Tensor& tensor, const device::Shape& wanted, const char* what) {
  const auto& s = tensor.shape;
  if (s == wanted && tensor.dtype == DType::f32 && tensor.space == device::Space::host) return;
  throw Error(ExitCode::internal,
              fmt::format("{}: host float [{}, {}, {}, {}] expected, [{}, {}, {}, {}] of another kind or shape found",
                          what, wanted.n, wanted.h, wanted.w, wanted.c, s.n, s.h, s.w, s.c));
}

device::Shape src_shape(const ConvShape& s) {
  return {s.n, s.h, s.w, s.c_in};
}
device::Shape dst_shape(const ConvShape& s) {
  return {s.n, s.out_h(), s.out_w(), s.c_out};
}

class HostBackend final : public Backend {
 public:
  void conv_forward(device::Queue& queue, const ConvShape& shape, device::Tensor src, Weights weight,
                    device::Tensor dst) override {
    check(src, src_shape(shape), "convolution source");
    check(dst, dst_shape(shape), "convolution destination");
    // Few channels in and results larger than the cache: the library's primitive goes over the results twice.
    if (is_matrix_product(shape) && shape.c_in < 64 && dst.bytes() > 6'000'000) {
      return gemm(queue, dst.rows(), shape.c_out, shape.c_in, src.f32(), Transpose::no,
                  static_cast<const float*>(weight.data), Transpose::yes, dst.f32(), Accumulate::no, nullptr);
    }
    if (direct::fits(Direction::forward, shape)) {
      return direct_.run(Direction::forward, shape, src.f32(), weight, packed_, dst.f32());
    }
    run(Direction::forward, shape, [&] { conv_.run(Direction::forward, shape, src.data, weight, packed_, dst.data); });
  }

  void conv_backward_data(device::Queue& queue, const ConvShape& shape, device::Tensor d_dst, Weights weight,
                          device::Tensor d_src) override {
    check(d_src, src_shape(shape), "convolution source gradient");
    check(d_dst, dst_shape(shape), "convolution destination gradient");
    if (is_matrix_product(shape)) {
      return gemm(queue, d_dst.rows(), shape.c_in, shape.c_out, d_dst.f32(), Transpose::no,
                  static_cast<const float*>(weight.data), Transpose::no, d_src.f32(), Accumulate::no, nullptr);
    }
    if (direct::fits(Direction::backward_data, shape)) {
      return direct_.run(Direction::backward_data, shape, d_dst.f32(), weight, packed_, d_src.f32());
    }
    run(Direction::backward_data, shape,
        [&] { conv_.run(Direction::backward_data, shape, d_dst.data, weight, packed_, d_src.data); });
  }

  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor d_dst,
                             float* d_weight, Accumulate accumulate) override {
    check(src, src_shape(shape), "convolution source");
    check(d_dst, dst_shape(shape), "convolution destination gradient");
    if (is_matrix_product(shape)) {
      return gemm(queue, shape.c_out, shape.c_in, d_dst.rows(), d_dst.f32(), Transpose::yes, src.f32(), Transpose::no,
                  d_weight, accumulate, nullptr);
    }
    if (direct::fits(Direction::backward_weights, shape)) {
      return direct_.run_weights(shape, src.f32(), d_dst.f32(), d_weight, accumulate);
    }
    run(Direction::backward_weights, shape,
        [&] { conv_.run_weights(shape, src.data, d_dst.data, d_weight, accumulate); });
  }

  void gemm(device::Queue&, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, Transpose ta,
            const float* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    const auto describe = [&] { return fmt::format("GEMM m {} n {} k {}", m, n, k); };
    const bool add = accumulate == Accumulate::yes;
    if (bias != nullptr) {
      // The bias goes first and the product is added to it: one pass less over c than the other way round.
#pragma omp parallel for
      for (std::int64_t i = 0; i < m; ++i) {
        float* row = c + i * n;
        if (add) {
          for (std::int64_t j = 0; j < n; ++j) row[j] += bias[j];
        } else {
          std::copy_n(bias, n, row);
        }
      }
    }
    const float beta = add || bias != nullptr ? 1.0F : 0.0F;
    guard(describe, [&] {
      const auto status = dnnl::sgemm(ta == Transpose::yes ? 'T' : 'N', tb == Transpose::yes ? 'T' : 'N', m, n, k, 1.0F,
                                      a, ta == Transpose::yes ? m : k, b, tb == Transpose::yes ? k : n, beta, c, n);
      if (status != dnnl::status::success) {
        throw dnnl::error(static_cast<dnnl_status_t>(status), "sgemm");
      }
    });
  }

  void set_packed_weights_limit(std::size_t bytes) override {
    packed_.set_limit(bytes);
  }
  std::size_t held_bytes() const override {
    return packed_.held_bytes() + conv_.held_bytes() + direct_.held_bytes();
  }
  std::string describe() const override {
    const auto* version = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  }

 private:
  /// The two backwards of a 1x1 convolution are plain products of the tensors as they lie in memory: as fast as the
  /// primitives, and weights and their gradients need no reordering. Forward, the packed primitive is mostly faster.
  static bool is_matrix_product(const ConvShape& s) {
    return s.kernel == 1 && s.stride == 1 && s.pad == 0 && s.groups == 1;
  }

  template <class Call>
  static void run(Direction direction, const ConvShape& s, Call&& call) {
    guard(
        [&] {
          return fmt::format("{} n {} h {} w {} channels {} -> {} kernel {} stride {} pad {} groups {}",
                             name(direction), s.n, s.h, s.w, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups);
        },
        call);
  }

  OnednnConv conv_;
  direct::Conv direct_;
  PackedWeights packed_;
};

}  // namespace

std::unique_ptr<Backend> make_host_backend() {
  std::unique_ptr<Backend> backend;
  guard([] { return "creating the CPU engine"; }, [&] { backend = std::make_unique<HostBackend>(); });
  return backend;
}

}  // namespace seer::dnn
