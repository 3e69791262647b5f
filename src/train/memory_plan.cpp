// SPDX-License-Identifier: Apache-2.0
#include "seer/train/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/data/loader.hpp"
#include "seer/device/binding.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"
#include "seer/train/precision.hpp"

namespace seer::train {
namespace {

/// FLOPs that cost as much as a byte of memory traffic, if no machine is known: between a core's 15 and a device's 160.
constexpr double kFlopsPerByte = 40;

class CostLedger final : public device::NullLedger {
 public:
  void work(const device::Work& work) override { cost += work.flops / kFlopsPerByte + work.bytes; }
  double cost = 0;
};

/// What one segment keeps at one resolution, and what its backward pass costs, under one choice.
struct Price {
  std::int64_t kept_bytes = 0;
  double cost = 0;
};

/// [resolution][segment], for a trunk that runs alone.
std::vector<std::vector<Price>> prices(const config::Config& config, const nn::Model& model, const data::Batch& batch,
                                       nn::Keep keep) {
  CostLedger ledger;
  device::Pool pool(device::Space::planned);
  const auto dnn = dnn::make_planned_backend();
  const auto block = device::Buffer(1, device::Space::planned);
  nn::Context ctx{.dnn = dnn.get(),
                  .pool = &pool,
                  .queue = device::Queue::planned(ledger),
                  .parameters = block.f32(),
                  .gradients = block.f32(),
                  .buffers = block.f32(),
                  .compute = compute_type(config.precision)};
  const auto& trunk = model.trunk();
  std::vector<std::vector<Price>> out;
  for (const auto& group : batch.groups) {
    const auto pass = trunk.make_pass({.keep = std::vector<nn::Keep>(trunk.segments(), keep)});
    std::vector<Price> row(trunk.segments());
    const auto features = pool.tensor({group.images.shape.n, 1, 1, trunk.width()});
    for (std::size_t s = 0; s < trunk.segments(); ++s) {
      const auto before = pool.in_use_bytes();
      trunk.forward(ctx, s, group.images, *pass, *features);
      row[s].kept_bytes = static_cast<std::int64_t>(pool.in_use_bytes() - before);
    }
    for (std::size_t s = trunk.segments(); s-- > 0;) {
      ledger.cost = 0;
      trunk.backward(ctx, s, *features, *pass, {});
      row[s].cost = ledger.cost;
    }
    out.push_back(std::move(row));
  }
  return out;
}

/// One segment at one resolution keeps one level less.
struct Step {
  std::size_t resolution, segment;
  nn::Keep to;
  double cost_per_byte;
};

/// All steps, the most worthwhile first.
std::vector<Step> steps(const config::Config& config, const nn::Model& model, const data::Batch& batch) {
  constexpr nn::Keep kLevels[] = {nn::Keep::all, nn::Keep::convolutions, nn::Keep::input};
  std::vector<Step> out;
  auto upper = prices(config, model, batch, kLevels[0]);
  for (std::size_t level = 1; level < std::size(kLevels); ++level) {
    auto lower = prices(config, model, batch, kLevels[level]);
    const auto first = out.size();
    for (std::size_t g = 0; g < lower.size(); ++g) {
      for (std::size_t s = 0; s < lower[g].size(); ++s) {
        const auto saved = upper[g][s].kept_bytes - lower[g][s].kept_bytes;
        if (saved <= 0) continue;
        const double cost = std::max(0.0, lower[g][s].cost - upper[g][s].cost);
        out.push_back({g, s, kLevels[level], cost / static_cast<double>(saved)});
      }
    }
    std::stable_sort(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
                     [](const Step& a, const Step& b) { return a.cost_per_byte < b.cost_per_byte; });
    upper = std::move(lower);
  }
  return out;
}

KeepTable same_everywhere(const data::Batch& batch, const nn::Model& model, nn::Keep keep) {
  return KeepTable(batch.groups.size(), std::vector<nn::Keep>(model.trunk().segments(), keep));
}

}  // namespace

data::Batch planned_batch(const config::Config& config, int ranks) {
  data::Batch batch;
  batch.images = config.data.global_batch / ranks;
  batch.groups = data::crop_groups(config.crops, batch.images);
  for (auto& group : batch.groups) {
    group.images.data = device::planned_address();
    group.images.space = device::Space::planned;
  }
  return batch;
}

std::int64_t crops_on_device_bytes(const config::Config& config, int ranks) {
  if (config.data.source != "crops") return data::feed_bytes(config, config.data.global_batch / ranks).device;
  std::int64_t bytes = 0;
  for (const auto& group : planned_batch(config, ranks).groups) bytes += group.images.bytes();
  return 2 * bytes;
}

std::int64_t source_bytes(const config::Config& config, Topology topology) {
  if (config.data.source != "crops")
    return data::loader_bytes(config, config.data.global_batch / topology.ranks, topology.readers);
  std::int64_t bytes = 0;
  for (const auto& group : planned_batch(config, topology.ranks).groups) bytes += group.images.bytes();
  return 2 * bytes;
}

std::int64_t message_copies_bytes(const config::Config& config, Topology topology) {
  if (topology.ranks == 1 || topology.on_device) return 0;
  constexpr auto kRound = static_cast<std::int64_t>(comm::Communicator::kStagingBytes);
  return config.parallel.shard == "none" ? kRound : 2 * kRound;
}

std::shared_ptr<dnn::Backend> planned_backend(Topology topology) {
  if (topology.host_library) return dnn::make_host_backend(device::Space::planned);
  return dnn::make_planned_backend();
}

namespace {

Footprint footprint(const config::Config& config, Topology topology, const KeepTable& keep,
                    const std::shared_ptr<dnn::Backend>& backend) {
  device::NullLedger ledger;
  const auto comm = comm::Communicator::planned(topology.ranks, topology.ranks_per_node, ledger);
  Phases phases(&ledger);
  Learner learner(config, comm, phases, {keep, {}}, backend);
  const auto batch = planned_batch(config, topology.ranks);
  learner.update(batch, 0, 0.1);
  learner.method().assume_filled();
  learner.update(batch, 0, 0.1);
  auto out = learner.footprint();
  out.communication += message_copies_bytes(config, topology);
  out.data = topology.on_device ? crops_on_device_bytes(config, topology.ranks) : source_bytes(config, topology);
  if (config.checkpoint.async && !topology.on_device) out.checkpoint = checkpoint::Snapshot::bytes(learner.slabs());
  return out;
}

}  // namespace

MemoryPlan plan_memory(const config::Config& config, Topology topology, std::int64_t budget_bytes,
                       std::int64_t base_bytes) {
  const nn::Model model(config.model);
  const auto batch = planned_batch(config, topology.ranks);
  const auto backend = planned_backend(topology);
  if (!topology.host_library) backend->set_packed_weights_limit(packed_weights_limit(config));
  const auto with = [&](KeepTable keep) {
    MemoryPlan plan{std::move(keep), {}};
    plan.footprint = footprint(config, topology, plan.keep, backend);
    plan.footprint.other += base_bytes;
    return plan;
  };
  const auto& wanted = config.parallel.recompute;
  auto plan = with(same_everywhere(batch, model,
                                   wanted == "block"   ? nn::Keep::input
                                   : wanted == "cheap" ? nn::Keep::convolutions
                                                       : nn::Keep::all));
  if (wanted != "auto" || plan.footprint.total() <= budget_bytes) return plan;

  const auto order = steps(config, model, batch);
  const auto after = [&](std::size_t count) {
    auto keep = same_everywhere(batch, model, nn::Keep::all);
    for (std::size_t i = 0; i < count; ++i) keep[order[i].resolution][order[i].segment] = order[i].to;
    return with(std::move(keep));
  };
  const auto fits = [&](const MemoryPlan& p) { return p.footprint.total() <= budget_bytes; };
  plan = after(order.size());
  if (fits(plan)) {
    for (std::size_t low = 0, high = order.size(); high - low > 1;) {  // `low` steps do not fit, `high` do
      const auto middle = (low + high) / 2;
      auto tried = after(middle);
      if (fits(tried)) {
        high = middle;
        plan = std::move(tried);
      } else {
        low = middle;
      }
    }
    return plan;
  }
  // Recomputing everything does not fit. Recomputing a little less may need less memory, because a replay needs memory
  // too.
  auto smallest = plan.footprint.total();
  for (std::size_t count = 0; count < order.size(); ++count) {
    auto tried = after(count);
    if (fits(tried)) return tried;
    smallest = std::min(smallest, tried.footprint.total());
  }
  throw Error(ExitCode::input, fmt::format("no choice of recomputation fits {} bytes a rank", budget_bytes),
              fmt::format("parallel.memory_budget_bytes = {} is the smallest that works here; else use a smaller batch "
                          "a rank, parallel.shard = \"parameters\", or more ranks",
                          smallest))
      .as_agreed();
}

namespace {

/// The memory of a process before its first update differs by some pages from start to start. It is rounded up to this
/// step, so that two starts find the same plan.
constexpr std::int64_t kResidentStepBytes = std::int64_t{4} << 20;
/// The difference is smaller than this.
constexpr std::int64_t kResidentMarginBytes = std::int64_t{1} << 20;

/// The same on all ranks: the least free device memory counts. It includes neither the host's part of the run nor what
/// contexts and libraries hold already.
MemoryPlan plan_on_device(const config::Config& config, const comm::Communicator& comm) {
  const auto free =
      comm.all_reduce(static_cast<std::int64_t>(device::available_bytes(device::Space::device)), comm::Op::min);
  const auto budget = config.parallel.memory_budget_bytes > 0 ? config.parallel.memory_budget_bytes : free;
  const int node_ranks = comm.all_reduce(std::int64_t{comm.node().size()}, comm::Op::max);
  return plan_memory(config,
                     {.ranks = comm.size(), .ranks_per_node = node_ranks, .host_library = false, .on_device = true},
                     budget, kDeviceLibrariesBytes);
}

}  // namespace

MemoryPlan plan_memory(const config::Config& config, const comm::Communicator& comm, data::Readers readers) {
  if (agreed_space(config, comm) == device::Space::device) return plan_on_device(config, comm);
  const int node_ranks = comm.all_reduce(std::int64_t{comm.node().size()}, comm::Op::max);
  const auto here = comm.all_reduce(static_cast<std::int64_t>(device::resident_bytes()), comm::Op::max);
  const auto free = comm.all_reduce(static_cast<std::int64_t>(device::available_bytes()), comm::Op::min) / node_ranks;
  const auto budget = config.parallel.memory_budget_bytes > 0 ? config.parallel.memory_budget_bytes : free + here;
  const auto threads = static_cast<std::int64_t>(data::reader_threads(config, comm));
  readers.threads = comm.all_reduce(threads, comm::Op::max);
  const auto plan = [&](std::int64_t held) {
    const auto base = (held + kResidentStepBytes - 1) / kResidentStepBytes * kResidentStepBytes + kLibrariesGrowBytes;
    return plan_memory(config, {.ranks = comm.size(), .ranks_per_node = node_ranks, .readers = readers}, budget, base);
  };
  try {
    return plan(here);
  } catch (const Error&) {
    return plan(here + kResidentMarginBytes);  // so that the budget in the message is enough for the next start, too
  }
}

}  // namespace seer::train
