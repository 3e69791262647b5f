// SPDX-License-Identifier: Apache-2.0
// ResNet and ResNeXt (method.md 1.6), with torchvision's names: stem, four stages of blocks, mean over the image.
#include <fmt/format.h>

#include <array>

#include "conv_trunk.hpp"
#include "seer/base/error.hpp"
#include "seer/kernels/pool.hpp"
#include "seer/nn/residual.hpp"
#include "seer/nn/stem.hpp"
#include "seer/nn/trunk.hpp"

namespace seer::nn {
namespace {

constexpr std::int64_t kStemWidth = 64;

/// 7x7 convolution with stride 2, BatchNorm, ReLU, max pooling. For small images: 3x3 convolution, BatchNorm, ReLU.
class PooledStem {
 public:
  struct Saved {
    Stem::Saved stem;
    device::Shape before;  ///< shape of the pooling's input
    device::Loan places, out;
  };

  PooledStem() = default;
  PooledStem(ParameterTable& parameters, ParameterTable& buffers, bool small)
      : stem_(parameters, buffers, "conv1", "bn1",
              {.width = kStemWidth, .kernel = small ? 3 : 7, .stride = small ? 1 : 2}),
        pooled_(!small) {}

  void forward(const Context& ctx, device::Tensor images, Saved& s, Keep keep) const {
    auto queue = ctx.queue;
    stem_.forward(ctx, images, s.stem, keep);
    if (!pooled_) {
      s.out = std::move(s.stem.out);
      return;
    }
    s.before = s.stem.out->shape;
    const device::Shape after{s.before.n, kernels::max_pooled(s.before.h), kernels::max_pooled(s.before.w), s.before.c};
    s.out = ctx.activation(after);
    s.places = ctx.pool->bytes(static_cast<std::size_t>(after.elems()));
    kernels::max_pool(queue, *s.stem.out, *s.out, static_cast<std::uint8_t*>(s.places->data));
    s.stem.out.release();
    if (!ctx.keeps()) s.places.release();
  }

  void backward(const Context& ctx, device::Loan d_out, Saved& s, device::Tensor d_images) const {
    auto queue = ctx.queue;
    if (pooled_) {
      device::Loan d_before = ctx.activation(s.before);
      kernels::max_pool_backward(queue, *d_out, static_cast<const std::uint8_t*>(s.places->data), *d_before);
      d_out = std::move(d_before);
    }
    stem_.backward(ctx, std::move(d_out), s.stem, d_images);
  }

 private:
  Stem stem_;
  bool pooled_ = true;
};

struct Preset {
  const char* name;
  std::array<std::int64_t, 4> depths;
  std::int64_t groups, width_per_group;  ///< of the first stage's 3x3 convolution; 0: blocks of two convolutions
};
constexpr std::array kPresets = {
    Preset{"18", {2, 2, 2, 2}, 1, 0},           Preset{"34", {3, 4, 6, 3}, 1, 0},
    Preset{"50", {3, 4, 6, 3}, 1, 64},          Preset{"101", {3, 4, 23, 3}, 1, 64},
    Preset{"152", {3, 8, 36, 3}, 1, 64},        Preset{"x50_32x4d", {3, 4, 6, 3}, 32, 4},
    Preset{"x101_32x8d", {3, 4, 23, 3}, 32, 8}, Preset{"x101_32x16d", {3, 4, 23, 3}, 32, 16},
    Preset{"x101_64x4d", {3, 4, 23, 3}, 64, 4},
};

const Preset& preset_of(const config::Model& model) {
  std::string names;
  for (const auto& preset : kPresets) {
    if (model.preset == preset.name) return preset;
    names += (names.empty() ? "" : " ") + std::string(preset.name);
  }
  throw Error(ExitCode::input, fmt::format("model.preset \"{}\" is not known", model.preset), "known presets: " + names)
      .as_agreed();
}

class ResNet final : public ConvTrunk<PooledStem, ResidualBlock> {
 public:
  ResNet(const Preset& preset, bool small, ParameterTable& parameters, ParameterTable& buffers) {
    set_stem(parameters, [&] { return PooledStem(parameters, buffers, small); });
    std::int64_t width_in = kStemWidth;
    for (std::size_t stage = 0; stage < preset.depths.size(); ++stage) {
      const std::int64_t planes = std::int64_t{64} << stage;
      const bool bottleneck = preset.width_per_group > 0;
      const std::int64_t width = bottleneck ? 4 * planes : planes;
      for (std::int64_t i = 0; i < preset.depths[stage]; ++i) {
        const ResidualBlock::Shape shape{
            .width_in = width_in,
            .width = width,
            .stride = stage > 0 && i == 0 ? 2 : 1,
            .inner_width = bottleneck ? planes * preset.width_per_group / 64 * preset.groups : 0,
            .groups = preset.groups};
        add_block(parameters, buffers, fmt::format("layer{}.{}", stage + 1, i), shape);
        width_in = width;
      }
      end_stage(width);
    }
  }
};

std::unique_ptr<Chain> make(const config::Model& model, ParameterTable& parameters, ParameterTable& buffers) {
  if (model.stem != "standard" && model.stem != "small") {
    throw Error(ExitCode::input, fmt::format("model.stem \"{}\" is not known", model.stem), "known: standard, small")
        .as_agreed();
  }
  return std::make_unique<ResNet>(preset_of(model), model.stem == "small", parameters, buffers);
}

std::vector<config::Model> presets() {
  std::vector<config::Model> out;
  for (const char* stem : {"standard", "small"}) {
    for (const auto& preset : kPresets) {
      out.emplace_back();
      out.back().preset = preset.name;
      out.back().stem = stem;
    }
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> metadata(const config::Model& model) {
  const auto& preset = preset_of(model);
  return {{"depths", fmt::format("[{}]", fmt::join(preset.depths, ", "))},
          {"groups", std::to_string(preset.groups)},
          {"width_per_group", std::to_string(preset.width_per_group)}};
}

std::string python(const config::Model& model) {
  const auto& preset = preset_of(model);
  std::string out;
  if (std::string(preset.name) == "x101_32x16d") {  // torchvision has no function for it
    out = fmt::format(
        "from torchvision.models.resnet import Bottleneck, ResNet\n"
        "model = ResNet(Bottleneck, [{}], groups={}, width_per_group={})\n",
        fmt::join(preset.depths, ", "), preset.groups, preset.width_per_group);
  } else {
    const bool next = model.preset.starts_with("x");
    out = fmt::format("model = torchvision.models.{}{}()\n", next ? "resnext" : "resnet",
                      model.preset.substr(next ? 1 : 0));
  }
  if (model.stem == "small") {
    out +=
        "model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)\n"
        "model.maxpool = torch.nn.Identity()\n";
  }
  return out;
}

}  // namespace

namespace trunks {
extern const TrunkKind resnet;
const TrunkKind resnet = {"resnet", make,     {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"},
                          presets,  metadata, python};
}  // namespace trunks

}  // namespace seer::nn
