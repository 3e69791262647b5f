// SPDX-License-Identifier: Apache-2.0
// The host implementation: selects oneDNN's primitives, oneDNN's GEMM or our own kernels (direct: floats in narrow
// groups; amx: bf16 on matrix units) for each convolution. The choice depends only on the shape, never on a timing, so
// that a resumed run repeats the same bits.
#include <dnnl_debug.h>
#include <fmt/format.h>
#include <dnnl.hpp>

#include <algorithm>
#include <optional>
#include <utility>

#include "amx_conv.hpp"
#include "describe.hpp"
#include "direct_conv.hpp"
#include "onednn.hpp"
#include "packed_weights.hpp"
#include "seer/base/error.hpp"
#include "seer/dnn/device_backend.hpp"
#if !defined(SEER_CUDA)
#include "seer/device/stand_in.hpp"
#endif

namespace seer::dnn {

namespace {

/// Runs a library call and converts its errors to ours.
template <class Describe, class Call>
void guard(Describe&& describe, Call&& call) {
  try {
    call();
  } catch (const dnnl::error& error) {
    std::string status = dnnl_status2str(error.status);
    std::ranges::replace(status, '_', ' ');
    throw Error(ExitCode::device, fmt::format("oneDNN: {} ({}) in {}", status, error.what(), describe()),
                error.status == dnnl_out_of_memory ? "use a smaller batch, or give each rank more memory" : "");
  }
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
      : space_(space), conv_(space), gemm_(space), direct_(space), amx_(space), packed_(space) {}

  void conv(device::Queue& queue, Direction direction, const ConvShape& shape, device::Tensor input, Weights weight,
            device::Tensor output, Accumulate accumulate) override {
    const bool forward = direction == Direction::forward, floats = input.dtype == DType::f32;
    const auto told = begin(queue, work_of(direction, shape, input.dtype, accumulate), direction, shape);
    const Access access(queue, input.data, weight.data, output.data);
    check(forward ? input : output, shape.src(), input.dtype, forward ? "source" : "source gradient");
    check(forward ? output : input, shape.dst(), input.dtype, forward ? "destination" : "destination gradient");
    ensure(accumulate == Accumulate::no || (!forward && can_add(shape, input.dtype)), "a gradient that can be added");
    // Forward, the library's primitive is mostly faster than a product. But with few input channels and results larger
    // than the cache, it would pass over the results twice.
    if (floats && shape.is_matrix_product() && (!forward || (shape.c_in < 64 && output.bytes() > 6'000'000))) {
      return product(output.rows(), output.shape.c, input.shape.c, input.f32(), Transpose::no, weight.data,
                     forward ? Transpose::yes : Transpose::no, output.f32(), accumulate, nullptr);
    }
    if (floats && direct::fits(direction, shape))
      return direct_.run(direction, shape, input.f32(), weight, packed_, output.f32());
    if (amx::fits(direction, shape, input.dtype))
      return amx_.run(direction, shape, input.data, weight, packed_, output.data, accumulate);
    guard([&] { return shape_text(direction, shape); },
          [&] { conv_.run(direction, shape, input.dtype, input.data, weight, packed_, output.data); });
  }

  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor d_dst,
                             float* d_weight, Accumulate accumulate) override {
    constexpr auto kDirection = Direction::backward_weights;
    const auto told = begin(queue, work_of(kDirection, shape, src.dtype), kDirection, shape);
    const Access access(queue, src.data, d_dst.data, d_weight);
    check(src, shape.src(), src.dtype, "source");
    check(d_dst, shape.dst(), src.dtype, "destination gradient");
    if (src.dtype == DType::f32 && shape.is_matrix_product()) {
      return product(shape.c_out, shape.c_in, d_dst.rows(), d_dst.f32(), Transpose::yes, src.f32(), Transpose::no,
                     d_weight, accumulate, nullptr);
    }
    if (src.dtype == DType::f32 && direct::fits(kDirection, shape))
      return direct_.run_weights(shape, src.f32(), d_dst.f32(), d_weight, accumulate);
    if (amx::fits(kDirection, shape, src.dtype))
      return amx_.run_weights(shape, src.data, d_dst.data, d_weight, accumulate);
    guard([&] { return shape_text(kDirection, shape); },
          [&] { conv_.run_weights(shape, src.dtype, src.data, d_dst.data, d_weight, accumulate); });
  }

  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
            Transpose ta, const void* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    const auto told = begin(queue, work_of(m, n, k, type), "product");
    const Access access(queue, a, b, c, bias);
    if (type == DType::f32) return product(m, n, k, a, ta, b, tb, c, accumulate, bias);
    const GemmShape shape{.m = m, .n = n, .k = k, .ta = ta, .tb = tb, .type = type, .add = adds(accumulate, bias)};
    if (!plans()) place(bias, m, n, c, accumulate);
    if (amx_.multiply_matrices(shape, a, b, c)) return;
    guard([&] { return fmt::format("GEMM of half precision m {} n {} k {}", m, n, k); },
          [&] { gemm_.run(shape, a, b, c); });
  }

  bool can_add(const ConvShape& shape, DType type) const override {
    return (type == DType::f32 && shape.is_matrix_product()) || amx::fits(Direction::backward_data, shape, type);
  }

  /// Tries what RegNetY needs. The library selects code by shape, but support depends only on type and direction.
  bool supports(DType type) override {
    if (type == DType::f32) return true;
    if (type == DType::u8) return false;
    const ConvShape stem{.n = 1, .h = 8, .w = 8, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1};
    const ConvShape grouped{
        .n = 1, .h = 8, .w = 8, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 3};
    const ConvShape pointwise{.n = 1, .h = 7, .w = 7, .c_in = 48, .c_out = 104};
    try {
      for (const auto direction : {Direction::forward, Direction::backward_data, Direction::backward_weights})
        for (const auto& shape : {stem, grouped, pointwise}) conv_.make_plan(direction, shape, type);
      for (const auto transposed : {Transpose::no, Transpose::yes})
        gemm_.make_plan({.m = 16, .n = 16, .k = 16, .ta = transposed, .tb = transposed, .type = type});
    } catch (const dnnl::error& error) {
      if (error.status == dnnl_unimplemented || error.status == dnnl_invalid_arguments) return false;
      throw;
    }
    return true;
  }

  void set_packed_weights_limit(std::size_t bytes) override { packed_.set_limit(bytes); }
  std::size_t held_bytes() const override {
    return packed_.held_bytes() + conv_.held_bytes() + gemm_.held_bytes() + direct_.held_bytes() + amx_.held_bytes();
  }
  std::string describe() const override {
    const auto* version = dnnl_version();
    return fmt::format("oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  }

 private:
  /// On a planned machine, records the work; else tells what begins, until the end of the scope.
  template <class... What>
  std::optional<Told> begin(const device::Queue& queue, const device::Work& work, const What&... what) const {
    if (!plans()) return std::optional<Told>(std::in_place, queue, what..., work);
    queue.ledger->work(work);
    return std::nullopt;
  }

  /// A product of floats. In a 1x1 convolution, both backward directions are plain products of the tensors as they lie
  /// in memory: as fast as the primitives, without reordering weights or their gradients.
  void product(std::int64_t m, std::int64_t n, std::int64_t k, const void* a, Transpose ta, const void* b, Transpose tb,
               float* c, Accumulate accumulate, const float* bias) {
    if (plans()) return;
    place(bias, m, n, c, accumulate);
    guard([&] { return fmt::format("GEMM m {} n {} k {}", m, n, k); },
          [&] {
            const bool a_turned = ta == Transpose::yes, b_turned = tb == Transpose::yes;
            const auto status =
                dnnl::sgemm(a_turned ? 'T' : 'N', b_turned ? 'T' : 'N', m, n, k, 1.0F, static_cast<const float*>(a),
                            a_turned ? m : k, static_cast<const float*>(b), b_turned ? k : n,
                            adds(accumulate, bias) ? 1.0F : 0.0F, c, n);
            if (status != dnnl::status::success) throw dnnl::error(static_cast<dnnl_status_t>(status), "sgemm");
          });
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
      if (accumulate == Accumulate::yes)
        for (std::int64_t j = 0; j < n; ++j) row[j] += bias[j];
      else
        std::copy_n(bias, n, row);
    }
  }

  void check(const device::Tensor& tensor, const device::Shape& wanted, DType type, const char* what) const {
    const auto& s = tensor.shape;
    if (s == wanted && tensor.dtype == type && type != DType::u8 && tensor.space == space_) return;
    throw Error(
        ExitCode::internal,
        fmt::format("convolution {}: expected a floating-point tensor [{}, {}, {}, {}] in this back end's memory, "
                    "found [{}, {}, {}, {}], another type or other memory",
                    what, wanted.n, wanted.h, wanted.w, wanted.c, s.n, s.h, s.w, s.c));
  }
  bool plans() const {
    return space_ == device::Space::planned;
  }

  device::Space space_;
  OnednnConv conv_;
  OnednnGemm gemm_;
  direct::Conv direct_;
  amx::Conv amx_;
  PackedWeights packed_;
};

}  // namespace

std::unique_ptr<Backend> make_host_backend(device::Space space) {
  std::unique_ptr<Backend> backend;
  guard([] { return "creating the CPU engine"; }, [&] { backend = std::make_unique<HostBackend>(space); });
  return backend;
}

std::unique_ptr<Backend> make_backend(device::Space space, [[maybe_unused]] DeviceOptions options) {
#if defined(SEER_CUDA)
  if (space == device::Space::device) return make_device_backend(std::move(options));
#endif
  return make_host_backend(space);
}

}  // namespace seer::dnn
