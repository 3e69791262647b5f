// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <map>

#include "describe.hpp"
#include "padded_widths.hpp"
#include "seer/dnn/device_backend.hpp"

namespace seer::dnn {
namespace {

class PlannedBackend final : public Backend {
 public:
  void conv(device::Queue& queue, Direction direction, const ConvShape& shape, device::Tensor input, Weights weight,
            device::Tensor, Accumulate accumulate) override {
    if (direction == Direction::forward) packed_bytes_[weight.data] = packed_weight_bytes(shape, input.dtype);
    queue.ledger->work(work_of(direction, shape, input.dtype, accumulate));
  }
  void conv_backward_weights(device::Queue& queue, const ConvShape& shape, device::Tensor src, device::Tensor, float*,
                             Accumulate) override {
    queue.ledger->work(work_of(Direction::backward_weights, shape, src.dtype));
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void*, Transpose,
            const void*, Transpose, float*, Accumulate, const float*) override {
    queue.ledger->work(work_of(m, n, k, type));
  }
  bool can_add(const ConvShape& shape, DType type) const override { return device_can_add(shape, type); }
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

std::size_t packed_weight_bytes(const ConvShape& shape, DType type) {
  if (weights_used_in_place(shape, type)) return 0;
  const bool padded = type != DType::f32 && PaddedWidths(shape).needed();
  return packed_copy_bytes(shape, type, false) + (padded ? packed_copy_bytes(shape, type, true) : 0);
}

}  // namespace seer::dnn
