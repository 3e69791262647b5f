// SPDX-License-Identifier: Apache-2.0
#include "seer/train/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "seer/base/error.hpp"
#include "seer/checkpoint/background.hpp"
#include "seer/data/source.hpp"
#include "seer/device/binding.hpp"
#include "seer/nn/model.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"

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
    std::ranges::stable_sort(std::span(out).subspan(first), {}, &Step::cost_per_byte);
    upper = std::move(lower);
  }
  return out;
}

/// Where a rank computes: the batch in use, the next one, and the memory to make it; on the host also the readers'.
std::int64_t batches_bytes(const config::Config& config, Topology topology) {
  const auto images = config.data.global_batch / topology.ranks;
  if (config.data.source != "crops") {
    return topology.on_device ? data::feed_bytes(config, images).device
                              : data::loader_bytes(config, images, topology.readers);
  }
  std::int64_t bytes = 0;
  for (const auto& group : planned_batch(config, topology.ranks).groups) bytes += group.images.bytes();
  return 2 * bytes;
}

Footprint footprint(const config::Config& config, Topology topology, const KeepTable& keep,
                    const std::shared_ptr<dnn::Backend>& backend) {
  device::NullLedger ledger;
  const auto comm = comm::Communicator::planned(topology.ranks, topology.ranks_per_node, ledger);
  Phases phases(&ledger);
  Learner learner(config, comm, phases, {keep, {}}, backend);
  const auto batch = planned_batch(config, topology.ranks);
  // A trunk that is frozen for a time needs more memory later.
  const std::int64_t update = learner.frozen_segments(0) > 0 ? learner.model().parameters().thawed_after() : 0;
  learner.update(batch, update, 0.1);
  learner.method().assume_filled();
  learner.update(batch, update, 0.1);
  auto out = learner.footprint();
  out.communication += message_copies_bytes(config, topology);
  out.data = batches_bytes(config, topology);
  if (config.checkpoint.async && !topology.on_device) out.checkpoint = checkpoint::Snapshot::bytes(learner.slabs());
  return out;
}

}  // namespace

std::vector<std::pair<const char*, std::int64_t>> rows(const Footprint& f) {
  return {{"parameters", f.parameters},
          {"gradients", f.gradients},
          {"momentum", f.momentum},
          {"activations", f.activations},
          {"workspaces", f.workspaces},
          {"communication", f.communication},
          {"data", f.data},
          {"checkpoint", f.checkpoint},
          {"other", f.other}};
}

std::int64_t Footprint::total() const {
  std::int64_t sum = 0;
  for (const auto& [name, bytes] : rows(*this)) sum += bytes;
  return sum;
}

std::string to_text(const KeepTable& keep) {
  std::array<std::int64_t, 3> of{};
  for (const auto& row : keep)
    for (const auto k : row) ++of[static_cast<std::size_t>(k)];
  return fmt::format("nothing in {}, cheap passes in {}, all in {} segments and resolutions", of[0], of[1], of[2]);
}

std::string to_table(const Footprint& footprint, std::int64_t peak_resident_bytes) {
  constexpr double kMiB = 1 << 20;
  std::string text = "memory of this rank, MiB";
  for (const auto& [name, bytes] : rows(footprint))
    if (bytes > 0) text += fmt::format("\n  {:<16}{:>10.1f}", name, static_cast<double>(bytes) / kMiB);
  const auto rest = std::max<std::int64_t>(0, peak_resident_bytes - footprint.total());
  return text + fmt::format("\n  {:<16}{:>10.1f}\n  {:<16}{:>10.1f}", "libraries", static_cast<double>(rest) / kMiB,
                            "peak resident", static_cast<double>(peak_resident_bytes) / kMiB);
}

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

std::int64_t message_copies_bytes(const config::Config& config, Topology topology) {
  if (topology.ranks == 1 || topology.on_device) return 0;
  constexpr auto kRound = static_cast<std::int64_t>(comm::Communicator::kStagingBytes);
  return config.parallel.shard == "none" ? kRound : 2 * kRound;
}

std::shared_ptr<dnn::Backend> planned_backend(Topology topology) {
  return topology.host_library ? dnn::make_host_backend(device::Space::planned) : dnn::make_planned_backend();
}

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
  const auto fits = [&](const MemoryPlan& p) { return p.footprint.total() <= budget_bytes; };
  const auto everywhere = [&](nn::Keep keep) {
    return KeepTable(batch.groups.size(), std::vector<nn::Keep>(model.trunk().segments(), keep));
  };
  const auto& wanted = config.parallel.recompute;
  auto plan = with(everywhere(wanted == "block"   ? nn::Keep::input
                              : wanted == "cheap" ? nn::Keep::convolutions
                                                  : nn::Keep::all));
  if (wanted != "auto" || fits(plan)) return plan;

  const auto order = steps(config, model, batch);
  const auto after = [&](std::size_t count) {
    auto keep = everywhere(nn::Keep::all);
    for (std::size_t i = 0; i < count; ++i) keep[order[i].resolution][order[i].segment] = order[i].to;
    return with(std::move(keep));
  };
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
  // Recomputing everything does not fit. A little less may need less memory, because a replay needs memory too.
  auto smallest = plan.footprint.total();
  for (std::size_t count = 0; count < order.size(); ++count) {
    auto tried = after(count);
    if (fits(tried)) return tried;
    smallest = std::min(smallest, tried.footprint.total());
  }
  throw Error(ExitCode::input, fmt::format("no choice of recomputation fits into {} bytes per rank", budget_bytes),
              fmt::format("parallel.memory_budget_bytes = {} is the smallest that works here; else use a smaller batch "
                          "per rank, parallel.shard = \"parameters\", or more ranks",
                          smallest))
      .as_agreed();
}

MemoryPlan plan_memory(const config::Config& config, const comm::Communicator& comm, data::Readers readers) {
  const auto space = agreed_space(config, comm);
  const int node_ranks = comm.all_reduce(std::int64_t{comm.node().size()}, comm::Op::max);
  const auto free = comm.all_reduce(static_cast<std::int64_t>(device::available_bytes(space)), comm::Op::min);
  const auto limit = config.parallel.memory_budget_bytes;
  if (space == device::Space::device) {
    // Not measured: the largest workspace of a convolution (1 GiB), the trials' second set of weights and gradients,
    // the code of every engine that was tried, NCCL's buffers, staging.
    constexpr std::int64_t kDeviceLibrariesBytes = std::int64_t{3} << 30;
    // Free memory includes neither the host's part of the run nor what contexts and libraries hold already.
    const Topology topology{
        .ranks = comm.size(), .ranks_per_node = node_ranks, .host_library = false, .on_device = true};
    return plan_memory(config, topology, limit > 0 ? limit : free, kDeviceLibrariesBytes);
  }
  const auto here = comm.all_reduce(static_cast<std::int64_t>(device::resident_bytes()), comm::Op::max);
  const auto budget = limit > 0 ? limit : free / node_ranks + here;
  readers.threads = comm.all_reduce(static_cast<std::int64_t>(data::reader_threads(config, comm)), comm::Op::max);
  const auto plan = [&](std::int64_t held) {
    // This memory differs by some pages from start to start. It is rounded up, so that two starts find the same plan.
    constexpr std::int64_t kStep = std::int64_t{4} << 20;
    const auto base = (held + kStep - 1) / kStep * kStep + kLibrariesGrowBytes;
    return plan_memory(config, {.ranks = comm.size(), .ranks_per_node = node_ranks, .readers = readers}, budget, base);
  };
  try {
    return plan(here);
  } catch (const Error&) {
    constexpr std::int64_t kMargin = std::int64_t{1} << 20;  // more than those pages
    return plan(here + kMargin);  // so that the budget in the message is enough for the next start, too
  }
}

}  // namespace seer::train
