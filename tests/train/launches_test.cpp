// SPDX-License-Identifier: Apache-2.0
// Counts the launches of an update on a planned machine. Each launch takes the processor a few microseconds, and the
// device waits if it is faster than that. The table is in docs/device.md.
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>
#include <utility>

#include "seer/nn/block.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/memory_plan.hpp"

namespace seer::train {
namespace {

struct Counts {
  int kernels = 0;    ///< and copies
  int libraries = 0;  ///< calls of cuDNN and cuBLASLt, one launch or more each
  int messages = 0;
  bool operator==(const Counts&) const = default;
};
void PrintTo(const Counts& c, std::ostream* out) {
  *out << c.kernels << " kernels and copies, " << c.libraries << " library calls, " << c.messages << " messages";
}

class Counter final : public device::NullLedger {
 public:
  void work(const device::Work& work) override {
    if (work.kind == device::Work::Kind::stream) {
      counts.kernels += work.launches;
      bytes += work.bytes;
    } else {
      counts.libraries += work.launches;
    }
  }
  void message(const device::Message&) override { ++counts.messages; }
  Counts take() { return std::exchange(counts, {}); }
  Counts counts;
  double bytes = 0;  ///< of kernels
};

/// SEER's RegNetY-16GF on one of many devices (inputs/seer_16gf.toml).
config::Config seer_16gf(int ranks) {
  config::Config c;
  c.model.preset = "16gf";
  c.head.dims = {3024, 4096, 4096, 256};
  c.head.batchnorm = true;
  c.head.prototypes = 16000;
  c.swav.freeze_prototypes_updates = 0;
  c.crops = {{2, 224, {0.14, 1.0}}, {4, 96, {0.05, 0.14}}};
  c.data.global_batch = 32 * ranks;
  c.precision.compute = "bf16";
  c.parallel.bn_group_size = ranks;
  c.parallel.recompute = "none";
  return c;
}

TEST(Launches, OfTheTrunk) {
  const auto config = seer_16gf(1);
  const auto model = method::make_model(config);
  const auto batch = planned_batch(config, 1);
  Counter counter;
  device::Pool pool(device::Space::planned);
  const auto dnn = dnn::make_planned_backend();
  const auto block = device::Buffer(1, device::Space::planned);
  nn::Context ctx{.dnn = dnn.get(),
                  .pool = &pool,
                  .queue = device::Queue::planned(counter),
                  .parameters = block.f32(),
                  .gradients = block.f32(),
                  .buffers = block.f32(),
                  .compute = DType::bf16};
  const auto& trunk = model.trunk();
  const auto& group = batch.groups.front();
  const auto pass = trunk.make_pass();
  const auto features = pool.tensor({group.images.shape.n, 1, 1, trunk.width()});
  for (std::size_t s = 0; s < trunk.segments(); ++s) trunk.forward(ctx, s, group.images, *pass, *features);
  EXPECT_EQ(counter.take(), (Counts{379, 95, 0})) << "forward";
  for (std::size_t s = trunk.segments(); s-- > 0;) trunk.backward(ctx, s, *features, *pass, {});
  EXPECT_EQ(counter.take(), (Counts{558, 189, 0})) << "backward";
}

// In units of an activation of the block, read or written once, as docs/device.md counts them.
TEST(Launches, PassesOfABlock) {
  nn::ParameterTable parameters, buffers;
  const nn::Block block(parameters, buffers, "block",
                        {.width_in = 2904, .width = 2904, .inner_width = 2904, .groups = 11, .squeezed = 726});
  Counter counter;
  device::Pool pool(device::Space::planned);
  const auto dnn = dnn::make_planned_backend();
  const auto values = device::Buffer(1, device::Space::planned);
  nn::RoundedWeights rounded(device::Space::planned);
  const nn::Context ctx{.dnn = dnn.get(),
                        .pool = &pool,
                        .queue = device::Queue::planned(counter),
                        .parameters = values.f32(),
                        .gradients = values.f32(),
                        .buffers = values.f32(),
                        .version = 1,
                        .rounded = &rounded,
                        .compute = DType::bf16};
  const auto x = ctx.activation({64, 14, 14, 2904});
  const auto passes = [&] { return std::lround(std::exchange(counter.bytes, 0) / static_cast<double>(x->bytes())); };
  nn::Block::Saved saved;
  block.forward(ctx, *x, saved);
  EXPECT_EQ(passes(), 11) << "forward";
  block.backward(ctx, ctx.activation(x->shape), saved);
  EXPECT_EQ(passes(), 17) << "backward, and one in the product that adds to the shortcut's gradient";
}

TEST(Launches, OfAnUpdate) {
  for (const int ranks : {1, 8}) {
    SCOPED_TRACE(ranks);
    const auto config = seer_16gf(ranks);
    const Topology topology{.ranks = ranks, .ranks_per_node = ranks, .host_library = false};
    Counter counter;
    const auto comm = comm::Communicator::planned(ranks, ranks, counter);
    Phases phases;
    Learner learner(config, comm, phases, plan_memory(config, topology, 0, 0), planned_backend(topology));
    const auto batch = planned_batch(config, ranks);
    learner.update(batch, 1, 0.1);
    counter.take();
    learner.update(batch, 2, 0.1);
    EXPECT_EQ(counter.take(), (Counts{ranks == 1 ? 2025 : 2036, 580, ranks == 1 ? 13 : 248}));
  }
}

}  // namespace
}  // namespace seer::train
