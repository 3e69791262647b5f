// SPDX-License-Identifier: Apache-2.0
#include "seer/nn/trunk.hpp"

#include <algorithm>

#include "seer/device/ledger.hpp"

namespace seer::nn {

#define SEER_KIND(name) extern const TrunkKind name;
namespace trunks {
#include "trunks.inc"
}
#undef SEER_KIND

const std::vector<const TrunkKind*>& trunk_kinds() {
#define SEER_KIND(name) &trunks::name,
  static const std::vector<const TrunkKind*> kinds = {
#include "trunks.inc"
  };
#undef SEER_KIND
  return kinds;
}

std::vector<std::string> trunk_names() {
  std::vector<std::string> names;
  for (const auto* kind : trunk_kinds()) names.emplace_back(kind->name);
  return names;
}

const TrunkKind& trunk_kind(const config::Model& model) {
  for (const auto* kind : trunk_kinds())
    if (model.trunk == kind->name) return *kind;
  throw config::unknown("model.trunk", model.trunk, trunk_names());
}

namespace {

class Recorder final : public dnn::Backend {
 public:
  std::vector<Convolution> found;

  void conv(device::Queue&, dnn::Direction direction, const dnn::ConvShape& shape, device::Tensor, dnn::Weights,
            device::Tensor, dnn::Accumulate) override {
    if (direction != dnn::Direction::forward) return;
    const auto same = std::ranges::find(found, shape, &Convolution::shape);
    if (same != found.end())
      ++same->count;
    else
      found.push_back({shape});
  }
  void conv_backward_weights(device::Queue&, const dnn::ConvShape&, device::Tensor, device::Tensor, float*,
                             dnn::Accumulate) override {}
  void gemm(device::Queue&, std::int64_t, std::int64_t, std::int64_t, DType, const void*, dnn::Transpose, const void*,
            dnn::Transpose, float*, dnn::Accumulate, const float*) override {}
  bool can_add(const dnn::ConvShape&, DType) const override { return false; }
  bool supports(DType) override { return true; }
  void set_packed_weights_limit(std::size_t) override {}
  std::size_t held_bytes() const override { return 0; }
  std::string describe() const override { return "recorder"; }
};

}  // namespace

std::vector<Convolution> convolutions(const Chain& trunk, std::int64_t images, std::int64_t size) {
  device::NullLedger ledger;
  device::Pool pool(device::Space::planned);
  const auto block = device::Buffer(1, device::Space::planned);
  Recorder recorder;
  const Context ctx{.dnn = &recorder,
                    .pool = &pool,
                    .queue = device::Queue::planned(ledger),
                    .parameters = block.f32(),
                    .buffers = block.f32(),
                    .mode = Mode::eval};
  const auto pixels = pool.tensor({images, size, size, 3});
  const auto features = pool.tensor({images, 1, 1, trunk.width()});
  const auto pass = trunk.make_pass();
  trunk.forward_all(ctx, *pixels, *pass, *features);
  return std::move(recorder.found);
}

}  // namespace seer::nn
