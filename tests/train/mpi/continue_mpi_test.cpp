// SPDX-License-Identifier: Apache-2.0
// [continue]: what a new run takes over from a checkpoint, in every mode of sharding, and how its trunk starts to move.
#include <map>

#include "checkpoint/scratch.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

const comm::Communicator& world() {
  static const auto comm = comm::Communicator::world();
  return comm;
}

struct Course {
  explicit Course(const config::Config& config) : learner(config, world(), phases, plan_memory(config, world())) {}
  void update(std::int64_t t) { learner.update(GoldenBatch(t, world()).batch, t, 0.3); }
  /// A whole tensor of a group, on every rank.
  std::vector<float> tensor(const std::string& group, const std::string& name) {
    std::vector<float> out;
    for (const auto& slab : learner.slabs()) {
      if (slab.group != group || slab.name != name) continue;
      std::int64_t elems = 1;
      for (const auto n : slab.shape) elems *= n;
      out.resize(static_cast<std::size_t>(elems));
      std::copy_n(slab.data, slab.end - slab.begin, out.begin() + slab.begin);
    }
    world().all_reduce(std::span(out));
    return out;
  }
  Phases phases;
  Learner learner;
};

class Continue : public testing::Test {
 protected:
  /// A run of two updates, and its checkpoint.
  Continue() : source_(source_config()) {
    set_golden_start(source_.learner);
    for (int t = 0; t < 2; ++t) source_.update(t);
    auto state = test::some_state(2, world().size());
    state.config_toml = config::to_toml(source_config());
    folder_ = checkpoint::save(world(), scratch_.path(), source_.learner.slabs(), state);
  }
  static config::Config source_config() {
    auto config = golden_config(world().size());
    config.swav.freeze_prototypes_updates = 0;
    config.parallel.bucket_bytes = 1024;  // the least that a configuration may have
    return config;
  }
  config::Config next(const ShardMode& mode = kShardModes[0]) const {
    auto config = golden_config(world().size(), mode);
    config.model.init_from = folder_;
    return config;
  }
  /// Starts from the checkpoint. Expects that tensors whose names begin with one of `fresh` are new, without momentum,
  /// and all others are the checkpoint's. `momenta`: whether those are taken over.
  void expect_taken(const config::Config& config, const std::vector<std::string>& fresh, bool momenta = true) {
    Course run(config);
    run.learner.start_from(folder_);
    for (const auto& p : run.learner.model().parameters().entries()) {
      const bool is_new = std::ranges::any_of(fresh, [&](const auto& begin) { return p.name.starts_with(begin); });
      const auto values = run.tensor("model", p.name), momentum = run.tensor("momentum", p.name);
      if (is_new)
        EXPECT_NE(values, source_.tensor("model", p.name)) << p.name;
      else
        EXPECT_EQ(values, source_.tensor("model", p.name)) << p.name;
      const std::vector<float> none(static_cast<std::size_t>(p.elems));
      EXPECT_EQ(momentum, is_new || !momenta ? none : source_.tensor("momentum", p.name)) << p.name;
    }
    const auto* const buffers = run.learner.buffers();
    const auto count = run.learner.model().buffers().block_elems();
    EXPECT_EQ(std::vector(buffers, buffers + count),
              std::vector(source_.learner.buffers(), source_.learner.buffers() + count));
  }

  test::Scratch scratch_{world()};
  Course source_;
  std::string folder_;
};

bool runs(const ShardMode& mode) {
  return mode.group == 0 || world().size() % mode.group == 0;
}

TEST_F(Continue, TakesOverEverythingThatFits) {
  for (const auto& mode : kShardModes)
    if (runs(mode)) expect_taken(next(mode), {});
  auto config = next();
  config.continuing.momenta = false;
  expect_taken(config, {}, false);
  config = next();
  config.optimizer.kind = "sgd";  // momenta of LARS have other sizes
  expect_taken(config, {}, false);
}

TEST_F(Continue, HeadsOfOtherShapesStartAnewAndSoDoThoseAbove) {
  auto config = next(kShardModes[3]);
  config.head.prototypes = 30;
  expect_taken(config, {"prototypes."});
  config = next();
  config.head.dims = {64, 20, 16};
  expect_taken(config, {"head.", "prototypes."});
  const auto warnings = log::warnings();
  if (world().is_root()) {
    EXPECT_NE(warnings.back().find("trunk kept, head new (head.0.weight has shape [32, 64], wanted [20, 64]), "
                                   "prototypes new (the head below is new), momenta of"),
              std::string::npos)
        << warnings.back();
  }
  config = next();
  config.continuing.prototypes = "random";
  expect_taken(config, {"prototypes."});
}

TEST_F(Continue, OtherTrunksAreRefused) {
  auto config = next();
  config.model.preset = "";  // one block more
  config.model.depth = 5;
  config.model.w0 = 16;
  config.model.group_width = 8;
  config.model.wa = 16;
  config.model.wm = 2;
  Course run(config);
  EXPECT_THROW(run.learner.start_from(folder_), Error);
}

// The trunk keeps every bit for two updates, moves less than without a ramp in the next ones, and the head moves at
// once.
TEST_F(Continue, TrunkIsFrozenAndThenItsRateRises) {
  for (const auto& mode : {kShardModes[0], kShardModes[3]}) {
    auto config = next(mode);
    config.continuing.freeze_trunk_updates = 2;
    config.continuing.ramp_updates = 3;
    Course ramped(config);
    config.continuing.ramp_updates = 0;
    Course sudden(config);
    const auto moved = [](Course& run, const std::vector<float>& before) {
      double sum = 0;
      const auto now = run.learner.parameters();
      const auto end = run.learner.model().trunk().segment_begins().back();
      for (std::size_t i = 0; i < static_cast<std::size_t>(end); ++i) sum += std::pow(now[i] - before[i], 2);
      return std::sqrt(sum);
    };
    for (auto* run : {&ramped, &sudden}) run->learner.start_from(folder_);
    const auto start = ramped.learner.parameters();
    for (int t = 0; t < 2; ++t)
      for (auto* run : {&ramped, &sudden}) run->update(t);
    EXPECT_EQ(moved(ramped, start), 0);
    EXPECT_NE(ramped.learner.parameters(), start);
    for (auto* run : {&ramped, &sudden}) run->update(2);
    EXPECT_GT(moved(sudden, start), 0);
    EXPECT_NEAR(moved(ramped, start) / moved(sudden, start), 0.25, 1e-3);
  }
}

TEST_F(Continue, PrototypesAreReplaced) {
  for (const auto& mode : kShardModes) {
    if (!runs(mode)) continue;
    Course run(next(mode));
    run.learner.start_from(folder_);
    const auto rows = test::hash_fill(24 * 16, 9, 1.0);
    run.learner.replace_prototypes(rows);
    EXPECT_EQ(run.tensor("model", "prototypes.weight"), rows);
    EXPECT_EQ(run.tensor("model", "head.0.weight"), source_.tensor("model", "head.0.weight"));
  }
}

}  // namespace
}  // namespace seer::train
