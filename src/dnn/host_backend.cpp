// SPDX-License-Identifier: Apache-2.0
// The host implementation: selects oneDNN's primitives, oneDNN's GEMM or our own direct kernels for each convolution.
// The choice depends only on the shape, never on a timing, so that a resumed run repeats the same bits.
#include <fmt/format.h>
#include <dnnl.hpp>

#include <algorithm>

#include "direct_conv.hpp"
#include "onednn_conv.hpp"
#include "onednn_gemm.hpp"
#include "packed_weights.hpp"
#include "planned_work.hpp"
#include "seer/base/error.hpp"
#include "seer/device/region.hpp"
#include "seer/dnn/backend.hpp"
#if !defined(SEER_CUDA)
#include "seer/device/stand_in.hpp"
#endif

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

/// Runs a library call and converts its errors to ours.
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

device::Shape src_shape(const ConvShape& s) {
  return {s.n, s.h, s.w, s.c_in};
}
device::Shape dst_shape(const ConvShape& s) {
  return {s.n, s.out_h(), s.out_w(), s.c_out};
}

#if defined(SEER_CUDA)
struct Access {
  template <class... Pointers>
  explicit Access(const device::Queue&, Pointers...) {}
};
#else
/// While it lives, the stand-in device's memory is accessible.
struct Access {
  template <class... Pointers>
  explicit Access(const device::Queue& queue, Pointers... pointers) : access(queue) {
    (device::expect_reached(queue, pointers, "a convolution or product"), ...);
  }
  device::StandInAccess access;
};
#endif

class HostBackend final : public Backend {
 public:
  explicit HostBackend(device::Space space)
      : space_(space), conv_(space), gemm_(space), direct_(space), packed_(space) {}

  void conv_forward(device::Queue& queue, const ConvShape& shape, device::Tensor src, Weights weight,
                    device::Tensor dst) override {
    if (plans()) queue.ledger->work(work_of(Direction::forward, shape, src.dtype));
    const auto region = named(name(Direction::forward));
    const Access access(queue, src.data, weight.data, dst.data);
    check(src, src_shape(shape), src.dtype, "convolution source");
    check(dst, dst_shape(shape), src.dtype, "convolution destination");
    if (src.dtype != DType::f32) {
      return run(Direction::forward, shape,
                 [&] { conv_.run(Direction::forward, shape, src.dtype, src.data, weight, packed_, dst.data); });
    }
    // Few input channels, and results larger than the cache: the library's primitive would pass over the results twice.
    if (is_matrix_product(shape) && shape.c_in < 64 && dst.bytes() > 6'000'000) {
      return product(dst.rows(), shape.c_out, shape.c_in, src.f32(), Transpose::no,
                     static_cast<const float*>(weight.data), Transpose::yes, dst.f32(), Accumulate::no, nullptr);
    }
    if (direct::fits(Direction::forward, shape)) {
      return direct_.run(Direction::forward, shape, src.f32(), weight, packed_, dst.f32());
    }
    run(Direction::forward, shape,
        [&] { conv_.run(Direction::forward, shape, DType::f32, src.data, weight, packed_, dst.data); });
  }

  void conv_backward_data(device::Queue& queue, const ConvShape& shape, device::Tensor d_dst, Weights weight,
                          device::Tensor d_src) override {
    if (plans()) queue.ledger->work(work_of(Direction::backward_data, shape, d_dst.dtype));
    const auto region = named(name(Direction::backward_data));
    const Access access(queue, d_dst.data, weight.data, d_src.data);
    check(d_src, src_shape(shape), d_dst.dtype, "convolution source gradient");
    check(d_dst, dst_shape(shape), d_dst.dtype, "convolution destination gradient");
    if (d_dst.dtype != DType::f32) {
      return run(Direction::backward_data, shape, [&] {
        conv_.run(Direction::backward_data, shape, d_dst.dtype, d_dst.data, weight, packed_, d_src.data);
      });
    }
    if (is_matrix_product(shape)) {
      return product(d_dst.rows(), shape.c_in, shape.c_out, d_dst.f32(), Transpose::no,
                     static_cast<const float*>(weight.data), Transpose::no, d_src.f32(), Accumulate::no, nullptr);
    }
    if (direct::fits(Direction::backward_data, shape)) {
      return direct_.run(Direction::backward_data, shape, d_dst.f32(), weight, packed_, d_src.f32());
    }
    run(Direction::backward_data, shape,
        [&] { conv_.run(Direction::backward_data, shape, DType::f32, d_dst.data, weight, packed_, d_src.data); });
  }

  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor d_dst,
                             float* d_weight, Accumulate accumulate) override {
    if (plans()) queue.ledger->work(work_of(Direction::backward_weights, shape, src.dtype));
    const auto region = named(name(Direction::backward_weights));
    const Access access(queue, src.data, d_dst.data, d_weight);
    check(src, src_shape(shape), src.dtype, "convolution source");
    check(d_dst, dst_shape(shape), src.dtype, "convolution destination gradient");
    if (src.dtype != DType::f32) {
      return run(Direction::backward_weights, shape,
                 [&] { conv_.run_weights(shape, src.dtype, src.data, d_dst.data, d_weight, accumulate); });
    }
    if (is_matrix_product(shape)) {
      return product(shape.c_out, shape.c_in, d_dst.rows(), d_dst.f32(), Transpose::yes, src.f32(), Transpose::no,
                     d_weight, accumulate, nullptr);
    }
    if (direct::fits(Direction::backward_weights, shape)) {
      return direct_.run_weights(shape, src.f32(), d_dst.f32(), d_weight, accumulate);
    }
    run(Direction::backward_weights, shape,
        [&] { conv_.run_weights(shape, DType::f32, src.data, d_dst.data, d_weight, accumulate); });
  }

  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, Transpose ta,
            const float* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    if (plans()) queue.ledger->work(work_of(m, n, k, DType::f32));
    const auto region = named("product");
    const Access access(queue, a, b, c, bias);
    product(m, n, k, a, ta, b, tb, c, accumulate, bias);
  }

  /// gemm() without a ledger entry: part of a convolution, or already recorded.
  void product(std::int64_t m, std::int64_t n, std::int64_t k, const float* a, Transpose ta, const float* b,
               Transpose tb, float* c, Accumulate accumulate, const float* bias) {
    if (plans()) return;
    const auto describe = [&] { return fmt::format("GEMM m {} n {} k {}", m, n, k); };
    const float beta = adds(accumulate, bias) ? 1.0F : 0.0F;
    place(bias, m, n, c, accumulate);
    guard(describe, [&] {
      const auto status = dnnl::sgemm(ta == Transpose::yes ? 'T' : 'N', tb == Transpose::yes ? 'T' : 'N', m, n, k, 1.0F,
                                      a, ta == Transpose::yes ? m : k, b, tb == Transpose::yes ? k : n, beta, c, n);
      if (status != dnnl::status::success) {
        throw dnnl::error(static_cast<dnnl_status_t>(status), "sgemm");
      }
    });
  }

  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
            Transpose ta, const void* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    if (type == DType::f32) {
      return gemm(queue, m, n, k, static_cast<const float*>(a), ta, static_cast<const float*>(b), tb, c, accumulate,
                  bias);
    }
    if (plans()) queue.ledger->work(work_of(m, n, k, type));
    const auto region = named("product");
    const Access access(queue, a, b, c, bias);
    const GemmShape shape{.m = m, .n = n, .k = k, .ta = ta, .tb = tb, .type = type, .add = adds(accumulate, bias)};
    if (!plans()) place(bias, m, n, c, accumulate);
    guard([&] { return fmt::format("GEMM of half precision m {} n {} k {}", m, n, k); },
          [&] { gemm_.run(shape, a, b, c); });
  }

  /// Tries what RegNetY needs. The library selects code by shape, but support depends only on type and
  /// direction.
  bool supports(DType type) override {
    if (type == DType::f32) return true;
    if (type == DType::u8) return false;
    const ConvShape stem{.n = 1, .h = 8, .w = 8, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1};
    const ConvShape grouped{
        .n = 1, .h = 8, .w = 8, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 3};
    const ConvShape pointwise{.n = 1, .h = 7, .w = 7, .c_in = 48, .c_out = 104};
    for (const auto direction : {Direction::forward, Direction::backward_data, Direction::backward_weights}) {
      for (const auto& shape : {stem, grouped, pointwise}) {
        if (!conv_.can_run(direction, shape, type)) return false;
      }
    }
    for (const auto transposed : {Transpose::no, Transpose::yes}) {
      if (!gemm_.can_run({.m = 16, .n = 16, .k = 16, .ta = transposed, .tb = transposed, .type = type})) return false;
    }
    return true;
  }

  void set_packed_weights_limit(std::size_t bytes) override { packed_.set_limit(bytes); }
  std::size_t held_bytes() const override {
    return packed_.held_bytes() + conv_.held_bytes() + gemm_.held_bytes() + direct_.held_bytes();
  }
  std::string describe() const override {
    const auto* version = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  }

 private:
  /// For a 1x1 convolution, both backward directions are plain products of the tensors as they lie in memory: as fast
  /// as the primitives, without reordering weights or their gradients. Forward, the packed primitive is mostly faster.
  static bool is_matrix_product(const ConvShape& s) {
    return s.kernel == 1 && s.stride == 1 && s.pad == 0 && s.groups == 1;
  }

  /// True if the product must be added to c. The bias is written to c first, which saves one pass over c.
  static bool adds(Accumulate accumulate, const float* bias) {
    return accumulate == Accumulate::yes || bias != nullptr;
  }
  static void place(const float* bias, std::int64_t m, std::int64_t n, float* c, Accumulate accumulate) {
    if (bias == nullptr) return;
#pragma omp parallel for
    for (std::int64_t i = 0; i < m; ++i) {
      float* row = c + i * n;
      if (accumulate == Accumulate::yes) {
        for (std::int64_t j = 0; j < n; ++j) row[j] += bias[j];
      } else {
        std::copy_n(bias, n, row);
      }
    }
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

  void check(const device::Tensor& tensor, const device::Shape& wanted, DType type, const char* what) const {
    const auto& s = tensor.shape;
    if (s == wanted && tensor.dtype == type && type != DType::u8 && tensor.space == space_) return;
    throw Error(ExitCode::internal,
                fmt::format("{}: [{}, {}, {}, {}] of one floating-point type expected, [{}, {}, {}, {}] of another "
                            "kind, shape or space found",
                            what, wanted.n, wanted.h, wanted.w, wanted.c, s.n, s.h, s.w, s.c));
  }
  bool plans() const {
    return space_ == device::Space::planned;
  }
  device::Region named(const char* what) const {
    return device::Region(plans() ? nullptr : what);
  }

  device::Space space_;
  OnednnConv conv_;
  OnednnGemm gemm_;
  direct::Conv direct_;
  PackedWeights packed_;
};

}  // namespace

std::unique_ptr<Backend> make_host_backend(device::Space space) {
  std::unique_ptr<Backend> backend;
  guard([] { return "creating the CPU engine"; }, [&] { backend = std::make_unique<HostBackend>(space); });
  return backend;
}

}  // namespace seer::dnn
