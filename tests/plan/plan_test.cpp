// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/plan.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/run/saver.hpp"

namespace seer::plan {
namespace {

using device::Message;
using device::Work;

config::Machine machine() {
  config::Machine m;
  m.name = "test";
  m.ranks_per_node = 4;
  m.rank_bytes = 1e11;
  m.bytes_per_s = 1e9;
  m.efficiency = 0.5;
  m.launch_s = 1e-3;
  m.fp32 = 1e12;
  m.bf16 = m.fp16_o1 = 2e12;
  for (const char* kind : {"pointwise", "grouped", "dense", "gemm"}) {
    m.rates.push_back({kind, "fp32", 16, 0.1, 0.1, 0.1});
    m.rates.push_back({kind, "fp32", 256, 0.5, 0.4, 0.3});
    m.rates.push_back({kind, "bf16", 16, 0.2, 0.2, 0.2});
  }
  m.node = {1e-5, 1e10};
  m.cluster = {1e-4, 1e9};
  m.read_bytes_per_s = m.write_bytes_per_s = 1e9;
  m.decode_pixels_per_s = m.crop_pixels_per_s = 1e9;
  m.failures_per_node_per_day = 0.01;
  return m;
}

TEST(Simulation, WorkTakesBytesOrFlopsAndTheLaunch) {
  const Simulation s(machine(), 4);
  EXPECT_NEAR(s.seconds(Work{.bytes = 5e8}), 1e-3 + 1.0, 1e-9);
  Work product{.kind = Work::Kind::pointwise, .width = 256, .flops = 1e12, .bytes = 0};
  EXPECT_NEAR(s.seconds(product), 1e-3 + 2.0, 1e-9);
  product.direction = Work::Direction::backward_weights;
  EXPECT_NEAR(s.seconds(product), 1e-3 + 1 / 0.3, 1e-9);
  product.direction = Work::Direction::forward;
  product.width = 64;  // half way from 16 to 256 in log(width)
  EXPECT_NEAR(s.seconds(product), 1e-3 + 1 / 0.3, 1e-9);
  product.width = 4096;  // beyond: the last
  EXPECT_NEAR(s.seconds(product), 1e-3 + 2.0, 1e-9);
  product.dtype = DType::bf16;
  EXPECT_NEAR(s.seconds(product), 1e-3 + 1e12 / (2e12 * 0.2), 1e-9);
  product.bytes = 5e9;  // bound by memory
  EXPECT_NEAR(s.seconds(product), 1e-3 + 10, 1e-9);
  EXPECT_NEAR(Simulation(machine(), 8).seconds(product), 2 * (1e-3 + 10), 1e-9) << "two ranks share what is for one";
  product.dtype = DType::f16;
  try {
    s.seconds(product);
    FAIL() << "no rate";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::input);
    EXPECT_NE(std::string(error.what()).find("kind = \"pointwise\", precision = \"fp16_o1\""), std::string::npos)
        << error.what();
  }
}

TEST(Simulation, CollectivesGoThroughTheNodeFirst) {
  const Simulation s(machine(), 4);
  // One node of 4: a ring's 2 * 3/4 of the bytes, 2 * log2(4) latencies.
  EXPECT_NEAR(s.seconds(Message{"x", Message::Kind::all_reduce, 4, 4, 1e10}), 4e-5 + 1.5, 1e-9);
  // NCCL's all-gather and reduce-scatter go round a ring, an MPI's through a tree.
  EXPECT_NEAR(s.seconds(Message{"x", Message::Kind::all_gather, 4, 4, 1e10}), 3e-5 + 0.75, 1e-9);
  // 8 nodes of 4: between them a quarter each.
  const Message far{"x", Message::Kind::reduce_scatter, 32, 4, 4e9};
  EXPECT_NEAR(s.seconds(far), 24e-5 + 0.3 + 7e-4 + 7.0 / 8.0 * 1.0, 1e-9);
  auto host = machine();
  host.backend = "host";
  EXPECT_NEAR(Simulation(host, 4).seconds(far), 2e-5 + 0.3 + 3e-4 + 7.0 / 8.0 * 1.0, 1e-9);
}

TEST(Simulation, ReduceScatterHasASpeedOfItsOwn) {
  auto m = machine();
  m.reduce_scatter_speedup = 0.5;
  const Simulation s(m, 4);
  EXPECT_NEAR(s.seconds(Message{"x", Message::Kind::reduce_scatter, 4, 4, 4e9}), 3e-5 + 2 * 0.3, 1e-9);
  EXPECT_NEAR(s.seconds(Message{"x", Message::Kind::all_gather, 4, 4, 4e9}), 3e-5 + 0.3, 1e-9);
}

TEST(Simulation, WhatRunsAsideIsHiddenUntilWaitedFor) {
  Simulation s(machine(), 4);
  const Message second{"x", Message::Kind::all_gather, 4, 4, 1e10 / 0.75};
  s.begin_aside();
  s.message(second);
  const auto ticket = s.end_aside();
  s.work({.bytes = 2.5e8});  // half a second
  s.wait(ticket);
  EXPECT_NEAR(s.elapsed_s(), 1.0, 1e-2);
  EXPECT_NEAR(s.totals().exposed_s, 0.5, 1e-2);
  EXPECT_NEAR(s.totals().hidden_s, 0.5, 1e-2);
  s.wait(ticket);
  EXPECT_NEAR(s.elapsed_s(), 1.0, 1e-2) << "waited for twice";
}

config::Config small() {
  config::Config c;
  c.model.preset = "tiny";
  c.head.dims = {256, 32, 16};
  c.head.prototypes = 24;
  c.crops = {{2, 64, {0.3, 1.0}}, {2, 32, {0.1, 0.3}}};
  c.data.global_batch = 512;
  c.parallel.bn_group_size = 8;
  return c;
}

std::int64_t features() {
  config::Config c = small();
  return nn::architecture(c.model).back().width;
}

TEST(Plan, CountsWhatShardingMoves) {
  auto c = small();
  c.head.dims[0] = features();
  const auto none = predict(c, machine(), {.ranks = 32, .ranks_per_node = 4});
  c.parallel.shard = "parameters";
  const auto sharded = predict(c, machine(), {.ranks = 32, .ranks_per_node = 4});
  EXPECT_LT(sharded.memory.footprint.parameters + sharded.memory.footprint.momentum,
            none.memory.footprint.parameters + none.memory.footprint.momentum);
  const auto bytes = [](const Report& r, const char* name, Message::Kind kind) {
    double sum = 0;
    for (const auto& t : r.traffic) sum += t.name == name && t.kind == kind ? t.bytes : 0;
    return sum;
  };
  EXPECT_EQ(bytes(none, "shard", Message::Kind::reduce_scatter), 0);
  EXPECT_EQ(bytes(sharded, "replicas", Message::Kind::all_reduce), 0);
  // Reduce-scatter: all gradients once. All-gather: all parameters forward, all but the prototypes again backward, and
  // the prototypes once more after their normalisation.
  const double block = bytes(none, "replicas", Message::Kind::all_reduce);
  EXPECT_EQ(bytes(sharded, "shard", Message::Kind::reduce_scatter), block);
  EXPECT_GE(bytes(sharded, "shard", Message::Kind::all_gather), 1.9 * block);
  EXPECT_LE(bytes(sharded, "shard", Message::Kind::all_gather), 2.2 * block);
  EXPECT_EQ(none.nodes, 8);
  EXPECT_GT(none.interval_s, 0);
}

TEST(Plan, RecomputationCostsArithmeticAndSavesMemory) {
  auto c = small();
  c.head.dims[0] = features();
  const auto none = predict(c, machine(), {.ranks = 8, .ranks_per_node = 4});
  c.parallel.recompute = "block";
  const auto block = predict(c, machine(), {.ranks = 8, .ranks_per_node = 4});
  EXPECT_LT(block.memory.footprint.activations, none.memory.footprint.activations);
  EXPECT_DOUBLE_EQ(block.model_flops, none.flops);
  EXPECT_GT(block.flops, 1.15 * none.flops);
  EXPECT_GT(block.step_s, none.step_s);
  c.parallel.recompute = "none";
  c.parallel.memory_budget_bytes = block.memory.footprint.total() + 1000;
  const auto tight = predict(c, machine(), {.ranks = 8, .ranks_per_node = 4});
  EXPECT_FALSE(tight.fits);
  ASSERT_FALSE(tight.suggestions.empty());
  EXPECT_NE(tight.suggestions[0].find("recompute"), std::string::npos);
}

TEST(Simulation, TheRoofIsPeakOrMemory) {
  auto m = machine();
  m.backend = "device";
  const Simulation s(m, 4);
  const Work product{.kind = Work::Kind::pointwise, .width = 64, .flops = 3 * m.fp32, .bytes = 2 * m.bytes_per_s};
  EXPECT_NEAR(s.roof_s(product), 3, 1e-9);
  EXPECT_NEAR(s.roof_s(Work{.bytes = 2 * m.bytes_per_s}), 2, 1e-9);
  EXPECT_GT(s.seconds(product), s.roof_s(product)) << "no rate is the peak itself";
}

TEST(Plan, KindsOfWorkAddUpToTheUpdate) {
  auto c = small();
  c.head.dims[0] = features();
  c.guard.replay_every = 3;
  const auto report = predict(c, machine(), {.ranks = 1, .ranks_per_node = 1});
  double flops = 0, product_s = 0, stream_s = 0;
  for (const auto& k : report.by_kind) {
    flops += k.flops;
    (k.kind == Work::Kind::stream ? stream_s : product_s) += k.seconds;
  }
  EXPECT_NEAR(flops, report.flops, 1e-9 * flops);
  EXPECT_NEAR(product_s, report.product_s, 1e-9 * product_s);
  EXPECT_NEAR(stream_s, report.stream_s, 1e-9 * stream_s);
  const auto text = to_roofline(report, c, machine(), 1.0);
  EXPECT_NE(text.find("100 % of the peak"), std::string::npos) << text;
}

TEST(Plan, SuggestionsNameAllThatTheyChange) {
  auto c = small();
  c.head.dims = {features(), 256, 16};
  const train::Topology eight = {.ranks = 8, .ranks_per_node = 4};
  auto smaller = c;
  smaller.parallel.recompute = "block";
  smaller.parallel.shard = "parameters";
  smaller.data.global_batch = 128;
  c.parallel.memory_budget_bytes = predict(smaller, machine(), eight).memory.footprint.total();
  const auto tight = predict(c, machine(), eight);
  const auto fits_with = [&](config::Config changed, const std::string& line, const std::string& settings) {
    ASSERT_TRUE(line.starts_with(settings)) << line;
    changed.parallel.memory_budget_bytes = c.parallel.memory_budget_bytes;
    changed.data.global_batch = std::stoll(line.substr(settings.size()));
    EXPECT_LT(changed.data.global_batch, c.data.global_batch);
    const auto report = predict(changed, machine(), eight);
    EXPECT_TRUE(report.fits);
    EXPECT_TRUE(
        line.ends_with(fmt::format(": {:.2f} GiB", static_cast<double>(report.memory.footprint.total()) / (1 << 30))))
        << line;
  };
  ASSERT_EQ(tight.suggestions.size(), 2U) << tight.suggestions[0];
  fits_with(c, tight.suggestions[0], "data.global_batch = ");
  smaller.parallel.recompute = "auto";
  fits_with(smaller, tight.suggestions[1],
            "parallel.recompute = \"auto\", parallel.shard = \"parameters\", data.global_batch = ");
}

TEST(Plan, ReplaysCountAsOftenAsTheyCome) {
  auto c = small();
  c.head.dims[0] = features();
  const auto calls = [&](std::int64_t every) {
    c.guard.replay_every = every;
    const auto report = predict(c, machine(), {.ranks = 8, .ranks_per_node = 4});
    for (const auto& t : report.traffic) {
      if (t.name == "bn") return t.calls;
    }
    return 0.0;
  };
  const double never = calls(0), always = calls(1);
  EXPECT_GT(always, never);
  for (const std::int64_t every : {2, 3, 5, 1000}) {
    EXPECT_DOUBLE_EQ(calls(every), never + (always - never) / static_cast<double>(every)) << every;
  }
  c.swav.freeze_prototypes_updates += 1;
  EXPECT_DOUBLE_EQ(calls(2), (never + always) / 2);
}

TEST(Plan, RefusesWhatTheJobWouldRefuse) {
  auto c = small();
  c.head.dims[0] = features();
  EXPECT_THROW(predict(c, machine(), {.ranks = 48, .ranks_per_node = 4}), Error) << "512 over 48";
  c.parallel.bn_group_size = 3;
  EXPECT_THROW(predict(c, machine(), {.ranks = 8, .ranks_per_node = 4}), Error);
  c.parallel.bn_group_size = 8;
  c.schedule.total_updates = c.schedule.warmup_updates - 1;
  EXPECT_THROW(predict(c, machine(), {.ranks = 8, .ranks_per_node = 4}), Error) << "warm-up";
}

TEST(Plan, IntervalIsAtLeastAnUpdate) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  m.failures_per_node_per_day = 1000;
  m.write_bytes_per_s = 1e15;
  const auto report = predict(c, m, {.ranks = 512, .ranks_per_node = 4});
  EXPECT_EQ(report.interval_s, report.step_s);
  EXPECT_EQ(report.relaxed_interval_s, 0);
}

TEST(Plan, CheckpointsOfAJobThatSeldomFailsMayBeRare) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  m.failures_per_node_per_day = 1e-3;
  const auto report = predict(c, m, {.ranks = 8, .ranks_per_node = 4});
  ASSERT_GT(report.relaxed_interval_s, report.interval_s);
  const double failures_per_s = 1e-3 * 2 / 86400, writing_s = c.checkpoint.async ? report.checkpoint_s : 0;
  EXPECT_NEAR(run::lost_share(report.stall_s, writing_s, report.relaxed_interval_s, 1 / failures_per_s), kSmallLoss,
              1e-9);
}

TEST(Plan, ARankHasWhatTheNodeHasForIt) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  EXPECT_EQ(predict(c, m, {.ranks = 8, .ranks_per_node = 4}).budget_bytes, 100000000000);
  c.parallel.memory_budget_bytes = 200000000000;
  EXPECT_EQ(predict(c, m, {.ranks = 8, .ranks_per_node = 4}).budget_bytes, 100000000000) << "more than there is";
  c.parallel.memory_budget_bytes = 50000000000;
  EXPECT_EQ(predict(c, m, {.ranks = 8, .ranks_per_node = 4}).budget_bytes, 50000000000);
  EXPECT_THROW(predict(c, m, {.ranks = 8, .ranks_per_node = 8}), Error) << "two ranks on a device";
  m.backend = "host";
  c.parallel.memory_budget_bytes = 0;
  EXPECT_EQ(predict(c, m, {.ranks = 8, .ranks_per_node = 8}).budget_bytes, 50000000000) << "two for one";
}

TEST(Plan, TheSmallestBudgetIsNamedWhereNothingFits) {
  auto c = small();
  c.head.dims[0] = features();
  c.parallel.recompute = "auto";
  c.parallel.memory_budget_bytes = 1;
  const auto report = predict(c, machine(), {.ranks = 1});
  EXPECT_FALSE(report.fits);
  ASSERT_FALSE(report.suggestions.empty());
  EXPECT_NE(report.suggestions.back().find("is the smallest that works here"), std::string::npos);
}

TEST(Plan, ADeviceKeepsNoCopyOfACheckpointButCopiesItOut) {
  auto c = small();
  c.head.dims[0] = features();
  c.checkpoint.async = true;
  auto m = machine();
  m.host_link_bytes_per_s = 1e9;
  const auto device = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_EQ(device.memory.footprint.checkpoint, 0);
  EXPECT_NEAR(device.stall_s, 2 * device.checkpoint_bytes / 4 / 1e9, 1e-9);
  m.backend = "host";
  const auto host = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_GT(host.memory.footprint.checkpoint, 0);
  EXPECT_NE(host.memory.footprint.data, device.memory.footprint.data) << "a device makes the crops itself";
}

TEST(Plan, ManyPrototypesTakeNoTimeOrMemory) {
  auto c = small();
  c.head.dims[0] = features();
  c.head.prototypes = 100000000;
  EXPECT_FALSE(predict(c, machine(), {.ranks = 1}).fits);
}

TEST(Plan, SlowerRanksAreWaitedFor) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  const auto even = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_EQ(even.straggle_s, 0);
  m.straggle = 0.25;
  const auto uneven = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_NEAR(uneven.straggle_s, 0.25 * (even.product_s + even.stream_s), 1e-9);
  EXPECT_NEAR(uneven.step_s, even.step_s + uneven.straggle_s, 1e-9);
  m.straggle = 0;
  m.meeting_s = 1e-3;
  c.parallel.overlap = false;  // every collective is waited for
  const auto meetings = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  double calls = 0;
  for (const auto& t : meetings.traffic) calls += t.ranks > 1 ? t.calls : 0;
  EXPECT_NEAR(meetings.straggle_s, 1e-3 * calls, 1e-9);
  EXPECT_EQ(predict(c, m, {.ranks = 1}).straggle_s, 0);
}

TEST(Plan, NamesTheLoaderWhereItLimits) {
  auto c = small();
  c.head.dims[0] = features();
  c.crops = {{2, 64, {0.3, 1.0}}};
  auto m = machine();
  m.decode_pixels_per_s = 1e5;
  const auto single = predict(c, m, {.ranks = 8, .ranks_per_node = 4});
  c.precision.compute = "bf16";
  const auto half = predict(c, m, {.ranks = 8, .ranks_per_node = 4});
  EXPECT_DOUBLE_EQ(single.step_s, half.step_s);
  for (const auto& report : {single, half}) {
    EXPECT_EQ(report.limit, "data") << "whatever part is longest";
    EXPECT_NEAR(report.loader.images_per_s, 8 * 1e5 / m.mean_image_pixels, 1e-9);
    EXPECT_NEAR(report.step_s, 512 / report.loader.images_per_s, 1e-9);
    const auto wanted = fmt::format(
        "limited by: data loading: the 4 cores of a node decode 2.1 images/s, its devices "
        "could use {:.0f}\n",
        report.loader.wanted_images_per_s / 2);
    EXPECT_NE(to_text(report, c, m).find(wanted), std::string::npos) << wanted << to_text(report, c, m);
  }
  m.read_bytes_per_s = 1e4;
  EXPECT_NE(
      to_text(predict(c, m, {.ranks = 8, .ranks_per_node = 4}), c, m).find("the file system gives 0.091 images/s"),
      std::string::npos);
}

// On a host the loader uses the cores of the step, and works ahead of it: the step takes longer, but does not wait.
TEST(Plan, ImagesMadeOnCoresThatComputeAreNoWait) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  m.backend = "host";
  m.overlap = 0;
  m.read_bytes_per_s = 1e12;
  const auto shared = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_EQ(shared.data_wait_s, 0);
  EXPECT_GT(shared.making_s, 0);
  m.reader_cores = 2;
  const auto apart = predict(c, m, {.ranks = 4, .ranks_per_node = 4});
  EXPECT_EQ(apart.making_s, 0);
  EXPECT_NEAR(apart.loader.images_per_s, 2 * shared.loader.images_per_s, 1e-6 * shared.loader.images_per_s);
}

TEST(Report, NumbersAreForPeople) {
  auto c = small();
  c.head.dims[0] = features();
  auto m = machine();
  m.failures_per_node_per_day = 1e-4;
  c.schedule.total_updates = 2000;
  c.schedule.warmup_updates = 10;
  auto text = to_text(predict(c, m, {.ranks = 1}), c, m);
  EXPECT_NE(text.find("on 1 node\n"), std::string::npos) << text;
  EXPECT_EQ(text.find(" 0 node-hours"), std::string::npos) << text;
  EXPECT_NE(text.find("one checkpoint at the end of the run loses less than 0.1 %"), std::string::npos) << text;
  m.failures_per_node_per_day = 1;
  c.schedule.total_updates = 1000000;
  text = to_text(predict(c, m, {.ranks = 1}), c, m);
  EXPECT_NE(text.find("best saved every"), std::string::npos) << text;
  EXPECT_EQ(text.find("e+0"), std::string::npos) << text;
}

TEST(Machine, FilesLoadAndComeBack) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(SEER_SOURCE_DIR) + "/inputs/machines")) {
    SCOPED_TRACE(entry.path().string());
    const auto m = config::load_machine(entry.path().string());
    const std::string path = testing::TempDir() + "seer_machine_test_" + std::to_string(getpid());
    std::ofstream(path) << config::to_toml(m, "again");
    const auto again = config::load_machine(path);
    EXPECT_EQ(again.name, m.name);
    EXPECT_EQ(again.rates.size(), m.rates.size());
    EXPECT_NEAR(again.bytes_per_s, m.bytes_per_s, 1e-5 * m.bytes_per_s);
    std::remove(path.c_str());
    for (const auto kind : {Work::Kind::pointwise, Work::Kind::grouped, Work::Kind::dense, Work::Kind::gemm}) {
      for (const auto dtype : {DType::f32, DType::f16}) {  // what the recipes of inputs/ compute in
        EXPECT_GT(Simulation(m, 1).seconds(Work{.kind = kind, .dtype = dtype, .flops = 1}), 0);
      }
    }
    ++files;
  }
  EXPECT_GE(files, 4);
}

TEST(Machine, MistakesAreToldTogetherWithTheirLines) {
  const std::string path = testing::TempDir() + "seer_machine_bad_" + std::to_string(getpid());
  std::ofstream(path) << "name = \"x\"\nranks_per_node = 0\ncores_per_rank = 2.5\n[memory]\nspeed = 1\n"
                         "rank_bytes = 1e30\n";
  try {
    config::load_machine(path);
    FAIL();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(":2: ranks_per_node"), std::string::npos) << what;
    EXPECT_NE(what.find(":5: memory.speed is not known"), std::string::npos) << what;
    EXPECT_NE(what.find(":3: cores_per_rank: wanted a whole number"), std::string::npos) << what;
    EXPECT_NE(what.find(":6: memory.rank_bytes: wanted"), std::string::npos) << what;
    EXPECT_NE(what.find("peak.fp32 is missing"), std::string::npos) << what;
  }
  std::remove(path.c_str());
}

TEST(Plan, EpochsAreUpdatesOnceTheNumberOfImagesIsKnown) {
  auto c = small();
  c.head.dims[0] = features();
  c.schedule.epochs = 2.5;
  c.schedule.warmup_updates = 10;
  const train::Topology eight = {.ranks = 8, .ranks_per_node = 4};
  const auto unknown = predict(c, machine(), eight);
  EXPECT_EQ(unknown.updates, 0);
  EXPECT_EQ(unknown.days, 0);
  EXPECT_NE(to_text(unknown, c, machine()).find("2.5 epochs of an unknown number"), std::string::npos);
  const auto known = predict(c, machine(), eight, 100 * static_cast<std::uint64_t>(c.data.global_batch));
  EXPECT_EQ(known.updates, 250);
  EXPECT_GT(known.days, 0);
  EXPECT_THROW(predict(c, machine(), eight, 1), Error) << "less than an update";
}

TEST(Report, JsonHoldsWhatTheTextTells) {
  auto c = small();
  c.head.dims[0] = features();
  const auto report = predict(c, machine(), {.ranks = 8, .ranks_per_node = 4});
  const auto json = nlohmann::json::parse(to_json(report));
  EXPECT_EQ(json["peak_rank_bytes"], report.memory.footprint.total());
  EXPECT_NEAR(json["step_ms"].get<double>(),
              json["product_ms"].get<double>() + json["memory_bound_ms"].get<double>() +
                  json["exposed_communication_ms"].get<double>() + json["data_making_ms"].get<double>() +
                  json["data_wait_ms"].get<double>(),
              1e-6);
  EXPECT_NE(to_text(report, c, machine()).find("fits"), std::string::npos);
  EXPECT_TRUE(json["traffic"][0]["calls"].is_number_integer());
}

}  // namespace
}  // namespace seer::plan
