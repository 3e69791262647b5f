// SPDX-License-Identifier: Apache-2.0
#include "seer/method/mix.hpp"

#include <algorithm>
#include <cmath>

#include "seer/base/error.hpp"
#include "seer/base/random.hpp"

namespace seer::method {
namespace {

/// Logarithm of a gamma variate of this shape (Marsaglia and Tsang 2000): the variate itself underflows for small
/// shapes.
double log_gamma_variate(Random& random, double shape) {
  const double d = shape + 1.0 - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = random.normal(), root = 1.0 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log(1.0 - random.uniform()) < 0.5 * x * x + d * (1.0 - v + std::log(v)))
      return std::log(d * v) + std::log(1.0 - random.uniform()) / shape;
  }
}

double beta_variate(Random& random, double alpha) {
  const double a = log_gamma_variate(random, alpha), b = log_gamma_variate(random, alpha);
  return 1.0 / (1.0 + std::exp(b - a));
}

/// A square of 1 - lambda of the area, around any pixel, clipped by the image.
kernels::Box cut_box(Random& random, double lambda, std::int64_t size) {
  const auto half = static_cast<std::int64_t>(static_cast<double>(size) * std::sqrt(1.0 - lambda)) / 2;
  const auto span = [&](std::int64_t& begin, std::int64_t& length) {
    const auto centre = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(size)));
    begin = std::max<std::int64_t>(centre - half, 0);
    length = std::min(centre + half, size) - begin;
  };
  kernels::Box box;
  span(box.top, box.height);
  span(box.left, box.width);
  return box;
}

}  // namespace

Mix::Mix(const config::Config& config, std::int64_t images)
    : mixup_(config.finetune.mixup),
      cutmix_(config.finetune.cutmix),
      probability_(config.finetune.mix_probability),
      switch_(config.finetune.mix_switch),
      seed_(static_cast<std::uint64_t>(config.data.seed)),
      images_(images),
      size_(config.crops.front().size) {
  const auto same = [this](const config::Crops& crops) { return crops.size == size_; };
  if (cutmix_ > 0 && !std::ranges::all_of(config.crops, same))
    throw Error(ExitCode::input, "finetune.cutmix: found [[crops]] of several sizes, wanted one size",
                "give all [[crops]] the same size, or use finetune.mixup")
        .as_agreed();
}

MixChoice Mix::choose(std::int64_t update) const {
  MixChoice choice;
  if (!on()) return choice;
  Random random(seed_, Purpose::mixing, static_cast<std::uint64_t>(update));
  if (random.uniform() >= probability_) return choice;
  choice.cut = random.uniform() < (mixup_ > 0 && cutmix_ > 0 ? switch_ : (cutmix_ > 0 ? 1.0 : 0.0));
  choice.lambda = beta_variate(random, choice.cut ? cutmix_ : mixup_);
  if (choice.cut) {
    choice.box = cut_box(random, choice.lambda, size_);
    choice.lambda =
        1.0 - static_cast<double>(choice.box.width * choice.box.height) / static_cast<double>(size_ * size_);
  }
  return choice;
}

void Mix::apply(device::Queue& queue, const data::Batch& batch, std::int64_t update) {
  const auto choice = choose(update);
  lambda_ = choice.lambda;
  if (lambda_ == 1) return;
  for (const auto& group : batch.groups) {
    for (std::int64_t crop = 0; crop < group.count; ++crop) {
      const auto images = group.images.slice(crop * images_, images_);
      if (choice.cut)
        kernels::exchange_boxes(queue, images, choice.box);
      else
        kernels::mix_pairs(queue, images, static_cast<float>(lambda_));
    }
  }
}

}  // namespace seer::method
