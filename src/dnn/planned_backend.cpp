// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <map>

#include "planned_work.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/dnn/packed_bytes.hpp"

namespace seer::dnn {
namespace {

class PlannedBackend final : public Backend {
 public:
  void conv_forward(device::Queue& queue, const ConvShape& shape, device::Tensor src, Weights weight,
                    device::Tensor) override {
    packed_bytes_[weight.data] = packed_weight_bytes(shape, src.dtype);
    queue.ledger->work(work_of(Direction::forward, shape, src.dtype));
  }
  void conv_backward_data(device::Queue& queue, const ConvShape& shape, device::Tensor d_dst, Weights,
                          device::Tensor) override {
    queue.ledger->work(work_of(Direction::backward_data, shape, d_dst.dtype));
  }
  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor, float*,
                             Accumulate) override {
    queue.ledger->work(work_of(Direction::backward_weights, shape, src.dtype));
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, const float*, Transpose, const float*,
            Transpose, float*, Accumulate, const float*) override {
    queue.ledger->work(work_of(m, n, k, DType::f32));
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void*, Transpose,
            const void*, Transpose, float*, Accumulate, const float*) override {
    queue.ledger->work(work_of(m, n, k, type));
  }
  bool supports(DType type) override { return type != DType::u8; }
  void set_packed_weights_limit(std::size_t bytes) override { limit_bytes_ = bytes; }
  /// Packed weights only: how much scratch memory engines need is unknown until they are timed.
  std::size_t held_bytes() const override {
    std::size_t bytes = 0;
    for (const auto& [weights, packed] : packed_bytes_) bytes += packed;
    return std::min(bytes, limit_bytes_);
  }
  std::string describe() const override { return "planned"; }

 private:
  std::map<const void*, std::size_t> packed_bytes_;
  std::size_t limit_bytes_ = std::size_t{1} << 30;  // as on a device
};

}  // namespace

std::unique_ptr<Backend> make_planned_backend() {
  return std::make_unique<PlannedBackend>();
}

}  // namespace seer::dnn
