// SPDX-License-Identifier: Apache-2.0
// The back ends that the tests run on. The device's is wrapped: each call copies its tensors from host memory to the
// device and the results back, so one test serves both.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "device_support.hpp"
#include "seer/dnn/backend.hpp"

#if defined(SEER_CUDA)
#include <cuda_runtime_api.h>
#include <unistd.h>

#include <filesystem>
#include <unordered_map>

#include "seer/device/copy.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/memory.hpp"
#include "seer/dnn/device_backend.hpp"
#endif

namespace seer::dnn {

enum class Place { host, device };
inline void PrintTo(Place place, std::ostream* stream) {
  *stream << (place == Place::host ? "host" : "device");
}

#if defined(SEER_CUDA)
inline const auto kPlaces = testing::Values(Place::host, Place::device);

class MirroredBackend final : public Backend {
 public:
  explicit MirroredBackend(DeviceOptions options) {
    device::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    queue_ = {.space = device::Space::device, .stream = stream_};
    backend_ = make_device_backend(std::move(options));
  }
  ~MirroredBackend() override {
    backend_.reset();
    cudaStreamDestroy(stream_);
  }

  void conv(device::Queue&, Direction direction, const ConvShape& shape, device::Tensor input, Weights weight,
            device::Tensor output, Accumulate accumulate) override {
    backend_->conv(queue_, direction, shape, up(input), up(weight, shape), up(output), accumulate);
    down(output);
  }
  void conv_backward_weights(device::Queue&, const ConvShape& shape, device::Tensor src, device::Tensor d_dst,
                             float* d_weight, Accumulate accumulate) override {
    const auto bytes = floats(shape.weight_elems());
    auto* mirrored = static_cast<float*>(up(d_weight, bytes));
    backend_->conv_backward_weights(queue_, shape, up(src), up(d_dst), mirrored, accumulate);
    down(d_weight, bytes);
  }
  void gemm(device::Queue&, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a, Transpose ta,
            const void* b, Transpose tb, float* c, Accumulate accumulate, const float* bias) override {
    const auto element = dtype_bytes(type);
    const void* on_a = up(a, static_cast<std::size_t>(m * k) * element);
    const void* on_b = up(b, static_cast<std::size_t>(k * n) * element);
    auto* on_c = static_cast<float*>(up(c, floats(m * n)));
    const auto* on_bias = bias != nullptr ? static_cast<const float*>(up(bias, floats(n))) : nullptr;
    backend_->gemm(queue_, m, n, k, type, on_a, ta, on_b, tb, on_c, accumulate, on_bias);
    down(c, floats(m * n));
  }
  bool can_add(const ConvShape& shape, DType type) const override { return backend_->can_add(shape, type); }
  bool supports(DType type) override { return backend_->supports(type); }
  void set_packed_weights_limit(std::size_t bytes) override { backend_->set_packed_weights_limit(bytes); }
  std::size_t held_bytes() const override { return backend_->held_bytes(); }
  std::string describe() const override { return backend_->describe(); }

 private:
  static std::size_t floats(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(float); }

  /// The same host memory always has the same place on the device: kept weights are identified by their address.
  void* up(const void* host, std::size_t bytes) {
    auto& buffer = mirrors_[host];
    if (buffer.bytes() != bytes) buffer = device::Buffer(bytes, device::Space::device);
    device::copy(queue_, host, device::Space::host, buffer.data(), device::Space::device, bytes);
    return buffer.data();
  }
  device::Tensor up(device::Tensor tensor) {
    tensor.data = up(tensor.data, static_cast<std::size_t>(tensor.bytes()));
    tensor.space = device::Space::device;
    return tensor;
  }
  Weights up(Weights weight, const ConvShape& shape) {
    return {up(weight.data, floats(shape.weight_elems())), weight.version};
  }
  void down(void* host, std::size_t bytes) {
    device::copy(queue_, mirrors_.at(host).data(), device::Space::device, host, device::Space::host, bytes);
    queue_.wait();
  }
  void down(const device::Tensor& tensor) { down(tensor.data, static_cast<std::size_t>(tensor.bytes())); }

  cudaStream_t stream_ = nullptr;
  device::Queue queue_;
  std::unordered_map<const void*, device::Buffer> mirrors_;
  std::unique_ptr<Backend> backend_;
};

/// Choices of this process, so that a second back end takes the same engines as the first.
inline std::string choices_folder() {
  struct Folder {
    std::string path = testing::TempDir() + "seer_dnn_choices_" + std::to_string(getpid());
    ~Folder() { std::filesystem::remove_all(path); }
  };
  static const Folder folder;
  return folder.path;
}
#else
inline const auto kPlaces = testing::Values(Place::host);
#endif

/// `float_weight_gradients`: false: a device may round them.
inline std::unique_ptr<Backend> make_backend(Place place, bool float_weight_gradients = true) {
#if defined(SEER_CUDA)
  if (place == Place::device) {
    DeviceOptions options;
    options.deterministic = true;
    options.float_weight_gradients = float_weight_gradients;
    options.cache_dir = choices_folder();
    return std::make_unique<MirroredBackend>(std::move(options));
  }
#endif
  (void)place, (void)float_weight_gradients;
  return make_host_backend();
}

inline std::string name(Place place) {
  return place == Place::host ? "host" : "device";
}

}  // namespace seer::dnn

/// First line of SetUp() or of a test that runs at a place.
#define SEER_NEEDS_PLACE(place)                        \
  do {                                                 \
    if ((place) == Place::device) SEER_NEEDS_DEVICE(); \
  } while (false)
