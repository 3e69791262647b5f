// SPDX-License-Identifier: Apache-2.0
// What separate layers do not show: rates that follow from whole updates.
#include <algorithm>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/plan/calibrate.hpp"
#include "seer/plan/plan.hpp"
#include "seer/train/learner.hpp"

namespace seer::plan {
namespace {

constexpr int kUpdates = 5;

/// A network of middling size with the crops of most recipes.
config::Config usual_job(const std::string& precision, int ranks) {
  config::Config config;
  config.model.preset = "800mf";
  config.head = {.dims = {768, 512, 512, 128}, .prototypes = 1000};
  config.crops = {{2, 224, {0.14, 1.0}}, {4, 96, {0.05, 0.14}}};
  config.data.global_batch = 4L * ranks;
  config.data.source = "crops";
  config.parallel.bn_group_size = 1;
  config.precision.compute = precision;
  config.checkpoint.async = false;
  config.schedule.warmup_updates = 0;
  config.schedule.total_updates = 1000;
  return config;
}

double measured_s(const config::Config& config, const comm::Communicator& world) {
  train::Phases phases;
  train::Learner learner(config, world, phases);
  auto batch = train::planned_batch(config, world.size());
  std::vector<std::vector<float>> pixels;
  for (auto& group : batch.groups) {
    pixels.emplace_back(static_cast<std::size_t>(group.images.elems()));
    for (std::size_t i = 0; i < pixels.back().size(); ++i) {
      pixels.back()[i] = static_cast<float>((i * 2654435761U) >> 8 & 0xffff) * 0x1p-15F - 1.0F;
    }
    group.images.data = pixels.back().data();
    group.images.space = device::Space::host;
  }
  learner.update(batch, config.swav.freeze_prototypes_updates, 0.01);
  std::vector<double> seconds;
  for (int t = 1; t <= kUpdates; ++t) {
    const Clock clock;
    learner.update(batch, config.swav.freeze_prototypes_updates + t, 0.01);
    seconds.push_back(clock.seconds());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kUpdates / 2, seconds.end());
  return world.all_reduce(seconds[kUpdates / 2], comm::Op::max);
}

}  // namespace

double products_beside_plan(const config::Machine& machine, const std::string& precision,
                            const comm::Communicator& world) {
  constexpr double kLeast = 0.5, kMost = 2;  // beyond that something else is wrong
  const auto config = usual_job(precision, world.size());
  const auto report = predict(config, machine, {.ranks = world.size(), .ranks_per_node = world.node().size()});
  const double others_s = report.step_s - report.product_s;
  return std::clamp((measured_s(config, world) - others_s) / report.product_s, kLeast, kMost);
}

}  // namespace seer::plan
