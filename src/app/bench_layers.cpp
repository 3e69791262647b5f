// SPDX-License-Identifier: Apache-2.0
#include "bench_layers.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "seer/nn/convolutions.hpp"
#include "seer/nn/model.hpp"

namespace seer::app {
namespace {

/// Keeps the last work recorded.
class OneWork final : public device::NullLedger {
 public:
  void work(const device::Work& work) override { last = work; }
  device::Work last;
};

/// Work of one call in each direction, as the planned back end records it.
std::array<device::Work, 3> work_of(const dnn::ConvShape& s, DType type) {
  OneWork ledger;
  auto queue = device::Queue::planned(ledger);
  const auto backend = dnn::make_planned_backend();
  const auto planned = device::Space::planned;
  const device::Tensor src{nullptr, {s.n, s.h, s.w, s.c_in}, type, planned},
      dst{nullptr, {s.n, s.out_h(), s.out_w(), s.c_out}, type, planned};
  std::array<device::Work, 3> out;
  backend->conv_forward(queue, s, src, {}, dst);
  out[0] = ledger.last;
  backend->conv_backward_data(queue, s, dst, {}, src);
  out[1] = ledger.last;
  backend->conv_backward_weights(queue, s, src, dst, nullptr, dnn::Accumulate::yes);
  out[2] = ledger.last;
  return out;
}

}  // namespace

double ConvLayer::roof_ms(std::size_t direction, const Yardstick& yardstick) const {
  const auto& w = work[direction];
  double s = 0;
  if (yardstick.flop_per_s > 0) s = w.flops / yardstick.flop_per_s;
  if (yardstick.bytes_per_s > 0) s = std::max(s, w.bytes / yardstick.bytes_per_s);
  return 1e3 * s;
}

std::string ConvLayer::name() const {
  const auto& s = shape;
  return fmt::format("{}x{} {} -> {}{}{}", s.kernel, s.kernel, s.c_in, s.c_out,
                     s.stride > 1 ? fmt::format(" /{}", s.stride) : "",
                     s.groups > 1 ? fmt::format(" in {} groups", s.groups) : "");
}

std::vector<ConvLayer> conv_layers(const config::Model& model, const std::vector<std::int64_t>& sizes,
                                   const std::vector<std::int64_t>& batches, DType type) {
  const nn::Model net(model);
  std::vector<ConvLayer> layers;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto first = layers.size();
    for (const auto& c : nn::convolutions(net.trunk(), batches[i], sizes[i])) {
      layers.push_back({.shape = c.shape, .crop = sizes[i], .count = c.count, .work = work_of(c.shape, type)});
    }
    layers[first].images = true;
  }
  return layers;
}

}  // namespace seer::app
