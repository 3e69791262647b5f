// SPDX-License-Identifier: Apache-2.0
// BYOL (method.md 10): trains a predictor to turn each crop's projection towards the teacher's projections of the same
// image's other crops. The teacher follows the student with a momentum.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "seer/base/error.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/byol.hpp"
#include "seer/method/method.hpp"
#include "seer/nn/heads.hpp"

namespace seer::method {
namespace {

class Byol final : public Method {
 public:
  explicit Byol(const Parts& parts)
      : config_(parts.config.byol),
        images_(parts.images),
        numbers_(1, parts.queue.space),
        all_images_(parts.images * parts.ranks.size()) {
    const auto& crops = parts.config.crops;
    const auto other_size = [&](const auto& c) { return c.size != crops.front().size; };
    if (parts.crops < 2 || std::ranges::any_of(crops, other_size)) {
      std::vector<std::string> found;
      for (const auto& c : crops) found.push_back(fmt::format("{} of {} pixels", c.count, c.size));
      throw Error(ExitCode::input,
                  fmt::format("[[crops]]: found {}; method.kind = \"byol\" needs two or more crops of one size",
                              fmt::join(found, ", ")),
                  "use one table [[crops]] with count = 2, or several of the same size")
          .as_agreed();
    }
  }

  const Share& loss(const Step& step) override {
    auto queue = step.context.queue;
    const auto predictions = step.outputs[1], projections = step.teacher;
    const auto rows = predictions.rows(), crops = rows / images_;
    ensure(projections.rows() == rows, "byol: the teacher's crops are not the student's");
    // The teacher's projections do not have length one yet.
    const auto targets = step.context.pool->tensor(projections.shape);
    const auto norms = step.context.pool->tensor({rows, 1, 1, 1});
    kernels::l2_normalize(queue, projections, *targets, norms->f32());
    const double each = 1 / static_cast<double>(crops * (crops - 1) * all_images_);
    kernels::byol_loss(queue, predictions, *targets, images_, step.gradient_scale * each, step.d_output,
                       numbers_.on_queue());
    numbers_.fetch(queue);
    queue.wait();
    share_.loss = queue.space == device::Space::planned ? 0 : *numbers_.on_host() * each;
    return share_;
  }

  double teacher_momentum(std::int64_t update, std::int64_t updates) const override {
    const double progress = std::min(1.0, static_cast<double>(update) / static_cast<double>(updates));
    return 1 - (1 - config_.momentum) * (std::cos(std::numbers::pi * progress) + 1) / 2;
  }
  std::size_t bytes() const override { return numbers_.bytes(); }

 private:
  config::Byol config_;
  std::int64_t images_;
  device::Mirrored<double> numbers_;
  std::int64_t all_images_;
  Share share_;
};

nn::MakeHeads heads(const config::Config& config) {
  return [head = config.head, hidden = config.byol.hidden](std::int64_t features, nn::ParameterTable& parameters,
                                                           nn::ParameterTable& buffers) {
    nn::Heads out;
    const nn::ProjectorOptions projector{.dims = head.dims, .batchnorm = head.batchnorm, .unit_rows = false};
    out.push_back(nn::make_projector(projector, features, parameters, buffers));
    const auto dim = out.back()->width();
    const nn::ProjectorOptions predictor{.dims = {dim, hidden, dim}, .batchnorm = head.batchnorm, .name = "predictor"};
    out.push_back(nn::make_projector(predictor, dim, parameters, buffers));
    return out;
  };
}

void doubts(const config::Config& c, std::int64_t, Doubts& out) {
  out.prototypes(c);
  out.when(!c.head.batchnorm, "head.batchnorm", "false",
           "byol often collapses if projector and predictor have no BatchNorm");
}

}  // namespace

namespace methods {
extern const Kind byol;
const Kind byol = {"byol", heads, make<Byol>, doubts, 1};
}  // namespace methods

}  // namespace seer::method
