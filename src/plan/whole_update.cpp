// SPDX-License-Identifier: Apache-2.0
// Rates that only whole updates show, not separate layers.
#include <algorithm>
#include <utility>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/plan/calibrate.hpp"
#include "seer/plan/plan.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/memory_plan.hpp"

namespace seer::plan {
namespace {

/// A medium-sized network with the crops of most recipes.
config::Config usual_job(const std::string& precision, int ranks, int images, int bn_group_size) {
  config::Config config;
  config.model.preset = "800mf";
  config.head = {.dims = {768, 512, 512, 128}, .prototypes = 1000};
  config.crops = {{2, 224, {0.14, 1.0}}, {4, 96, {0.05, 0.14}}};
  config.data.global_batch = static_cast<std::int64_t>(images) * ranks;
  config.data.source = "crops";
  config.parallel.bn_group_size = bn_group_size;
  config.precision.compute = precision;
  config.checkpoint.async = false;
  config.schedule.warmup_updates = 0;
  config.schedule.total_updates = 1000;
  return config;
}

/// Runs updates of a job on meaningless pixels.
class Job {
 public:
  Job(config::Config config, const comm::Communicator& world)
      : config_(std::move(config)),
        world_(world),
        learner_(config_, world, phases_, train::plan_memory(config_, world), train::make_backend(config_, world)),
        batch_(train::planned_batch(config_, world.size())) {
    for (auto& group : batch_.groups) {
      auto& pixels = pixels_.emplace_back(static_cast<std::size_t>(group.images.elems()));
      for (std::size_t i = 0; i < pixels.size(); ++i) {
        pixels[i] = static_cast<float>((i * 2654435761U) >> 8 & 0xffff) * 0x1p-15F - 1.0F;
      }
      group.images.data = pixels.data();
      group.images.space = device::Space::host;
    }
    for (const auto& parameter : learner_.model().parameters().entries()) {
      update_ = std::max(update_, parameter.treatment.frozen_updates);  // the job's usual update has no frozen ones
    }
    update_s();  // plans, packs, touches pages
  }
  /// Seconds of the slowest rank.
  double update_s() {
    world_.barrier();
    const Clock clock;
    learner_.update(batch_, update_++, 0.01);
    return world_.all_reduce(clock.seconds(), comm::Op::max);
  }

 private:
  config::Config config_;
  const comm::Communicator& world_;
  train::Phases phases_;
  train::Learner learner_;
  data::Batch batch_;
  std::vector<std::vector<float>> pixels_;
  std::int64_t update_ = 0;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Report planned(const config::Config& config, const config::Machine& machine, const comm::Communicator& world) {
  return predict(config, machine, {.ranks = world.size(), .ranks_per_node = world.node().size()});
}

}  // namespace

double products_beside_plan(const config::Machine& machine, const std::string& precision,
                            const comm::Communicator& world, int updates) {
  constexpr double kLeast = 0.5, kMost = 2;  // a factor outside these limits has another cause
  const auto config = usual_job(precision, world.size(), 4, 1);
  const auto report = planned(config, machine, world);
  const double others_s = report.step_s - report.product_s;
  Job job(config, world);
  std::vector<double> seconds;
  for (int t = 0; t < updates; ++t) seconds.push_back(job.update_s());
  return std::clamp((median(seconds) - others_s) / report.product_s, kLeast, kMost);
}

double meeting_beside_message_s(const config::Machine& machine, const comm::Communicator& world, int updates) {
  if (world.size() == 1) return 0;
  constexpr int kImages = 2;
  const auto meeting = usual_job("fp32", world.size(), kImages, world.size());
  const auto apart = usual_job("fp32", world.size(), kImages, 1);
  const auto calls = [](const Report& report) {
    double sum = 0;
    for (const auto& t : report.traffic) sum += t.calls;
    return sum;
  };
  const auto with = planned(meeting, machine, world), without = planned(apart, machine, world);
  Job meets(meeting, world), stays(apart, world);
  std::vector<double> more_s;  // alternating: the machine's speed changes from second to second
  for (int t = 0; t < updates; ++t) more_s.push_back(meets.update_s() - stays.update_s());
  return std::max(0.0, (median(more_s) - (with.exposed_s - without.exposed_s)) / (calls(with) - calls(without)));
}

}  // namespace seer::plan
