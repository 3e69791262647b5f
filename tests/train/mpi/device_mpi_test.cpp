// SPDX-License-Identifier: Apache-2.0
// Compares whole updates on a device and on the host, in every mode of sharding; and runs that move from one to the
// other.
#include <fmt/format.h>

#include <functional>
#include <limits>

#include "checkpoint/scratch.hpp"
#include "on_device.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

namespace seer::train {
namespace {

constexpr double kSingle = 1e-4, kHalf = 2e-2;  ///< allowed difference, because sums round in another order

const comm::Communicator& world() {
  static const auto all = comm::Communicator::world();
  return all;
}

config::Config config_on(const char* device, const ShardMode& mode) {
  auto config = golden_config(world().size(), mode);
  config.parallel.device = device;
  config.swav.queue_length = 2 * kImages;
  config.swav.freeze_prototypes_updates = 1;
  return config;
}

/// Updates and their results.
struct Course {
  std::vector<float> losses, norms, entropies, parameters, gradients, statistics, queue, momenta;

  void go(Learner& learner, std::int64_t from, std::int64_t to) {
    for (std::int64_t t = from; t < to; ++t) {
      const GoldenBatch golden(t, world());
      const auto outcome = learner.update(golden.batch, t, 0.05, Learner::Figures::yes);
      EXPECT_FALSE(outcome.skipped);
      losses.push_back(static_cast<float>(outcome.loss));
      norms.push_back(static_cast<float>(outcome.grad_norm));
      for (const auto& figure : outcome.figures) entropies.push_back(static_cast<float>(figure.value));
    }
  }
  void look(Learner& learner) {
    parameters = learner.parameters();
    gradients = learner.gradients();
    const float* running = learner.buffers();
    statistics.assign(running, running + learner.model().buffers().block_elems());
    for (const auto& slab : learner.slabs()) {
      if (slab.group == "momentum") momenta.insert(momenta.end(), slab.data, slab.data + (slab.end - slab.begin));
    }
    checkpoint::State state;
    learner.save(state);
    queue = state.method.tensors["queue"].values;
  }
};

Course course(const config::Config& config, std::int64_t updates) {
  Phases phases;
  Learner learner(config, world(), phases, plan_memory(config, world()));
  EXPECT_EQ(learner.space() == device::Space::device, config.parallel.device == "device");
  set_golden_start(learner);
  Course out;
  out.go(learner, 0, updates);
  out.look(learner);
  return out;
}

class TrainingOnDevice : public test::OnDevice {
 protected:
  static void expect_same(const Course& found, const Course& host, double tolerance) {
    expect_near(found.losses, host.losses, tolerance, "losses");
    expect_near(found.norms, host.norms, tolerance, "norms of gradients");
    expect_near(found.entropies, host.entropies, tolerance, "entropies");
    expect_near(found.parameters, host.parameters, tolerance, "parameters");
    expect_near(found.gradients, host.gradients, 10 * tolerance, "gradients");
    expect_near(found.momenta, host.momenta, 10 * tolerance, "momenta");
    expect_near(found.statistics, host.statistics, tolerance, "running statistics");
    expect_near(found.queue, host.queue, tolerance, "the queue");
  }
  static void for_every_mode(const std::function<void(const ShardMode&)>& run) {
    for (const auto& mode : kShardModes) {
      if (mode.group > world().size()) continue;
      SCOPED_TRACE(fmt::format("{} in groups of {}", mode.shard, mode.group));
      run(mode);
    }
  }
};

TEST_F(TrainingOnDevice, NumbersAreTheHostsInEveryModeOfSharding) {
  for_every_mode([](const ShardMode& mode) {
    for (const bool overlap : {true, false}) {
      auto on_host = config_on("host", mode), on_device = config_on("device", mode);
      on_host.parallel.overlap = on_device.parallel.overlap = overlap;
      expect_same(course(on_device, 4), course(on_host, 4), kSingle);
    }
  });
}

TEST_F(TrainingOnDevice, RecomputationAndGroupsChangeNothing) {
  for (const char* recompute : {"cheap", "block"}) {
    for (const int groups : {1, 2, 4}) {
      if (world().size() % groups != 0) continue;
      auto on_host = config_on("host", {"none", 0});
      on_host.parallel.recompute = recompute;
      on_host.parallel.bn_group_size = world().size() / groups;
      auto on_device = on_host;
      on_device.parallel.device = "device";
      expect_same(course(on_device, 3), course(on_host, 3), kSingle);
    }
  }
}

TEST_F(TrainingOnDevice, HalfPrecisionIsTheHosts) {
  if (!dnn::make_host_backend()->supports(DType::bf16)) GTEST_SKIP() << "not run: no bf16 on this processor";
  for_every_mode([](const ShardMode& mode) {
    auto on_host = config_on("host", mode);
    on_host.precision.compute = "bf16";
    on_host.precision.reduce = "half";
    on_host.precision.loss_scale = "dynamic";
    auto on_device = on_host;
    on_device.parallel.device = "device";
    expect_same(course(on_device, 3), course(on_host, 3), kHalf);
  });
}

TEST_F(TrainingOnDevice, GradientsTravelInHalfPrecision) {
  for_every_mode([](const ShardMode& mode) {
    auto on_host = config_on("host", mode);
    on_host.precision.reduce = "half";
    auto on_device = on_host;
    on_device.parallel.device = "device";
    expect_same(course(on_device, 3), course(on_host, 3), kHalf);
  });
}

TEST_F(TrainingOnDevice, MessagesAreTheHosts) {
  if (world().size() == 1) GTEST_SKIP() << "a single rank sends no messages";
  for_every_mode([](const ShardMode& mode) {
    std::vector<std::string> sent[2];
    for (const char* device : {"host", "device"}) {
      Phases phases;
      Learner learner(config_on(device, mode), world(), phases, plan_memory(config_on(device, mode), world()));
      std::vector<comm::Traffic> before;
      for (std::int64_t t = 0; t < 3; ++t) {
        if (t == 1) before = learner.traffic();
        learner.update(GoldenBatch(t, world()).batch, t, 0.05);
      }
      for (const auto& t : learner.traffic()) {
        const auto same = [&](const comm::Traffic& b) { return b.name == t.name && std::string(b.kind) == t.kind; };
        const auto found = std::find_if(before.begin(), before.end(), same);
        // The world also sends the few numbers of an update, in other messages.
        if (t.name == "world") continue;
        sent[device == std::string("device") ? 1 : 0].push_back(
            fmt::format("{} {} {}", t.name, t.kind, t.bytes - (found == before.end() ? 0 : found->bytes)));
      }
    }
    EXPECT_EQ(sent[0], sent[1]);
  });
}

// The host continues from a checkpoint of a device as if it were its own, and the reverse.
TEST_F(TrainingOnDevice, ARunGoesOnWhereItWasNotBegun) {
  for_every_mode([](const ShardMode& mode) {
    const auto whole = course(config_on("host", mode), 5);
    for (const char* first : {"host", "device"}) {
      const char* second = first == std::string("host") ? "device" : "host";
      SCOPED_TRACE(fmt::format("from the {} to the {}", first, second));
      const test::Scratch scratch(world());
      Phases phases;
      Course found;
      std::string folder;
      {
        Learner learner(config_on(first, mode), world(), phases, plan_memory(config_on(first, mode), world()));
        set_golden_start(learner);
        found.go(learner, 0, 3);
        checkpoint::State state;
        state.update = 3;
        state.ranks = world().size();
        learner.save(state);
        checkpoint::save(world(), scratch.path(), learner.slabs(), state);
        folder = scratch.path() + "/checkpoints/update-00000003";
      }
      Learner learner(config_on(second, mode), world(), phases, plan_memory(config_on(second, mode), world()));
      const auto state = checkpoint::load(world(), folder, learner.slabs(), false);
      learner.share_loaded();
      learner.restore(state);
      found.go(learner, 3, 5);
      found.look(learner);
      expect_same(found, whole, kSingle);
    }
  });
}

// Host and device find the same fault with the same origin, and the skipped update changes nothing.
TEST_F(TrainingOnDevice, BadNumbersAreFoundWhereTheHostFindsThem) {
  for_every_mode([](const ShardMode& mode) {
    for (const char* what : {"pixels", "gradient", "weights", "replay"}) {
      SCOPED_TRACE(what);
      const std::string kind = what;
      std::vector<std::string> found[2];
      for (const char* device : {"host", "device"}) {
        auto config = config_on(device, mode);
        if (kind == "gradient") config.faults.nan_updates = {2};
        if (kind == "replay") {
          config.guard.replay_every = 2;
          config.faults.flip_update = 2;
        }
        Phases phases;
        Learner learner(config, world(), phases, plan_memory(config, world()));
        set_golden_start(learner);
        learner.update(GoldenBatch(0, world()).batch, 0, 0.05);
        if (kind == "weights") {
          for (auto& slab : learner.slabs()) {
            if (slab.group == "model" && slab.name == "stem.0.weight" && slab.begin < slab.end) {
              slab.data[0] = std::numeric_limits<float>::infinity();
            }
          }
          learner.share_loaded();
        }
        const auto before = learner.parameters();
        GoldenBatch golden(1, world());
        if (kind == "pixels" && world().rank() == world().size() - 1) golden.storage[1][7] = std::nanf("");
        const auto outcome = learner.update(golden.batch, 1, 0.05);
        EXPECT_TRUE(outcome.skipped);
        auto& lines = found[device == std::string("device") ? 1 : 0];
        lines.push_back(std::to_string(static_cast<int>(outcome.cause)));
        for (const auto& culprit : outcome.culprits) lines.push_back(fmt::format("{} {}", culprit.rank, culprit.what));
        const auto after = learner.parameters();
        EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
      }
      EXPECT_GE(found[0].size(), 2U);
      EXPECT_EQ(found[1], found[0]);
    }
  });
}

TEST_F(TrainingOnDevice, AutomaticallyTheDeviceIsTaken) {
  Phases phases;
  auto config = config_on("auto", {"none", 0});
  EXPECT_EQ(Learner(config, world(), phases, plan_memory(config, world())).space(), device::Space::device);
  config.parallel.device = "host";
  EXPECT_EQ(Learner(config, world(), phases, plan_memory(config, world())).space(), device::Space::host);
}

#if !defined(SEER_CUDA)
TEST(TrainingWithoutADevice, IsRefusedWhereOneIsAskedForAndElseOnTheHost) {
  Phases phases;
  try {
    const Learner learner(config_on("device", {"none", 0}), world(), phases,
                          plan_memory(config_on("device", {"none", 0}), world()));
    ADD_FAILURE() << "made";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_TRUE(error.agreed());
    EXPECT_NE(error.message().find("this is a host build"), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("-DSEER_CUDA=ON"), std::string::npos) << error.message();
  }
  EXPECT_EQ(
      Learner(config_on("auto", {"none", 0}), world(), phases, plan_memory(config_on("auto", {"none", 0}), world()))
          .space(),
      device::Space::host);
}
#endif

}  // namespace
}  // namespace seer::train
