// SPDX-License-Identifier: Apache-2.0
#include "bench_layers.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace seer::app {
namespace {

/// Remembers the last thing it was told.
class OneWork final : public device::NullLedger {
 public:
  void work(const device::Work& work) override { last = work; }
  device::Work last;
};

/// Of one call in each direction: the planned back end's own words.
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

/// Spec 1.2: stem, then per block a, b, c and where the shape changes the shortcut. Squeeze-excitation works on one
/// pixel an image and is left out.
std::vector<ConvLayer> conv_layers(const nn::Architecture& architecture, const std::vector<std::int64_t>& sizes,
                                   const std::vector<std::int64_t>& batches, DType type) {
  std::vector<ConvLayer> layers;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto first = layers.size();
    const auto add = [&](std::int64_t h, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                         std::int64_t groups) {
      const dnn::ConvShape shape{.n = batches[i],
                                 .h = h,
                                 .w = h,
                                 .c_in = in,
                                 .c_out = out,
                                 .kernel = kernel,
                                 .stride = stride,
                                 .pad = kernel / 2,
                                 .groups = groups};
      const auto same = std::find_if(layers.begin() + static_cast<std::ptrdiff_t>(first), layers.end(),
                                     [&](const ConvLayer& l) { return l.shape == shape; });
      if (same != layers.end()) {
        ++same->count;
      } else {
        layers.push_back({.shape = shape, .crop = sizes[i], .work = work_of(shape, type)});
      }
      return shape.out_h();
    };
    std::int64_t h = add(sizes[i], 3, nn::kStemWidth, 3, 2, 1);
    layers[first].images = true;
    std::int64_t in = nn::kStemWidth;
    for (const auto& stage : architecture.stages) {
      for (std::int64_t block = 0; block < stage.depth; ++block) {
        const std::int64_t stride = block == 0 ? 2 : 1;
        add(h, in, stage.width, 1, 1, 1);
        const std::int64_t out_h = add(h, stage.width, stage.width, 3, stride, stage.width / stage.group_width);
        add(out_h, stage.width, stage.width, 1, 1, 1);
        if (stride != 1 || in != stage.width) add(h, in, stage.width, 1, stride, 1);
        in = stage.width;
        h = out_h;
      }
    }
  }
  return layers;
}

}  // namespace seer::app
