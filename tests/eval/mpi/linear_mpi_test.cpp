// SPDX-License-Identifier: Apache-2.0
// Linear evaluation on any number of ranks, stopped and continued, and what it refuses.
#include "seer/eval/linear.hpp"

#include <filesystem>
#include <limits>

#include "../support.hpp"
#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

constexpr std::size_t kWidth = 12;

/// Rows around the centre of their class, and labels: rows of classes that overlap a little.
struct Rows {
  std::vector<float> values;
  std::vector<std::int32_t> labels;
  Rows(std::size_t count, std::size_t classes, std::uint64_t seed) {
    const auto noise = test::hash_fill(count * kWidth, seed, 1.0);
    for (std::size_t i = 0; i < count; ++i) {
      labels.push_back(static_cast<std::int32_t>(i * 7 % classes));
      for (std::size_t j = 0; j < kWidth; ++j)
        values.push_back(noise[i * kWidth + j] + static_cast<float>(test::hash_value(
                                                     1, static_cast<std::size_t>(labels[i]) * kWidth + j, 1.0)));
    }
  }
};

FeatureTable table(const Rows& rows, const comm::Communicator& comm) {
  auto out = test::slice(rows.values, rows.labels, comm);
  out.info.layer = "one,two";
  out.info.columns = {{.feature = "one", .begin = 0, .width = 5, .map = {}},
                      {.feature = "two", .begin = 5, .width = 7, .map = {}}};
  return out;
}

LinearTask small_task() {
  LinearTask task;
  task.protocol = config::probe_protocol("grid");
  task.protocol.rates = {0.01, 0.1, 1};
  task.protocol.batch = 30;
  task.protocol.updates = 40;
  task.checkpoint_every = 3;
  return task;
}

class LinearMpi : public testing::Test {
 protected:
  LinearMpi() {
    std::string path =
        (std::filesystem::temp_directory_path() / ("seer-linear-" + std::to_string(::getpid()))).string();
    world.broadcast(path);
    folder = path;
    if (world.is_root()) std::filesystem::create_directories(folder);
    world.barrier();
  }
  ~LinearMpi() override {
    world.barrier();
    if (world.is_root()) std::filesystem::remove_all(folder);
  }
  LinearReport evaluate(const comm::Communicator& comm, const LinearTask& task, const Rows& train,
                        const Rows& tests) const {
    return evaluate_linear(comm, *table_source(comm, table(train, comm), table(tests, comm)), task);
  }
  std::vector<float> stored(const std::string& path, const char* what = "/weight") const {
    world.barrier();
    return h5::File::open(path).read_all<float>(what, h5::Type::f32);
  }
  ExitCode code_of(const Rows& train, const Rows& tests, const LinearTask& task) const {
    try {
      evaluate(world, task, train, tests);
    } catch (const Error& error) {
      return error.code();
    }
    return ExitCode::ok;
  }
  comm::Communicator world = comm::Communicator::world();
  comm::Communicator alone = world.split(world.rank());
  std::string folder;
};

TEST_F(LinearMpi, EqualsOneRank) {
  const Rows train(301, 4, 2), tests(97, 4, 3);
  for (const bool on_test : {false, true}) {
    auto task = small_task();
    task.select_on_test = on_test;
    task.draws = 2;
    task.subset = {.fraction = 0.5, .per_class = 0, .seed = 1};
    task.save_head = folder + "/head.h5";
    const auto shared = evaluate(world, task, train, tests);
    task.save_head = folder + "/" + std::to_string(world.rank()) + ".h5";
    const auto whole = evaluate(alone, task, train, tests);
    EXPECT_EQ(shared.heads, 12U);
    EXPECT_EQ(shared.fit_images, whole.fit_images);
    EXPECT_EQ(shared.held_images, whole.held_images);
    EXPECT_EQ(shared.held_images > 0, !on_test);
    ASSERT_EQ(shared.rows.size(), 2U);
    for (std::size_t f = 0; f < 2; ++f) {
      ASSERT_EQ(shared.rows[f].draws.size(), 2U);
      for (std::size_t k = 0; k < 2; ++k) {
        const auto &a = shared.rows[f].draws[k], &b = whole.rows[f].draws[k];
        EXPECT_EQ(a.head.rate, b.head.rate);
        EXPECT_EQ(a.head.batchnorm, b.head.batchnorm);
        EXPECT_NEAR(a.figures.top1, b.figures.top1, 0.011);  // one image whose classes are level
        EXPECT_GT(a.figures.top1, 0.4);
      }
    }
    EXPECT_LT(test::relative_error(stored(folder + "/head.h5"), stored(task.save_head)), 1e-4);
    EXPECT_LT(test::relative_error(stored(folder + "/head.h5", "/bias"), stored(task.save_head, "/bias")), 1e-4);
  }
}

TEST_F(LinearMpi, SeveralClassesAnImageAndEntriesLeftOut) {
  const Rows train(120, 3, 2), tests(60, 3, 3);
  const auto several = [&](const comm::Communicator& comm, const Rows& rows) {
    auto out = table(rows, comm);
    for (std::size_t i = 0; i < out.rows(); ++i) {
      const auto row = out.first + i;
      std::vector<std::int32_t> has, ignored;
      if (row % 5 != 0) has.push_back(out.labels[i]);
      if (row % 4 == 0 && row % 5 != 0) has.push_back((out.labels[i] + 1) % 3);
      if (row % 7 == 0) ignored.push_back((out.labels[i] + 2) % 3);
      out.targets.add(has);
      out.ignored.add(ignored);
    }
    return out;
  };
  const auto run = [&](const comm::Communicator& comm) {
    return evaluate_linear(comm, *table_source(comm, several(comm, train), several(comm, tests)), small_task());
  };
  const auto shared = run(world), whole = run(alone);
  EXPECT_TRUE(shared.several);
  EXPECT_EQ(shared.test_images, 60U);
  EXPECT_NEAR(shared.best.draws[0].figures.all_points, whole.best.draws[0].figures.all_points, 1e-3);
  EXPECT_NEAR(shared.best.draws[0].figures.eleven_points, whole.best.draws[0].figures.eleven_points, 1e-3);
  EXPECT_GT(shared.best.draws[0].figures.all_points, 0.5);
  EXPECT_EQ(shared.best.draws[0].figures.top1, 0);
}

TEST_F(LinearMpi, GoesOnWithTheSameBits) {
  const Rows train(150, 4, 2), tests(50, 4, 3);
  for (const char* optimizer : {"nesterov", "adamw"}) {
    auto task = small_task();
    task.protocol.optimizer = optimizer;
    task.save_head = folder + "/whole.h5";
    evaluate(world, task, train, tests);
    task.save_head = folder + "/parts.h5";
    task.checkpoint = folder + "/probe.h5";
    for (const std::int64_t stop : {8, 20}) {
      task.after_update = [&](std::int64_t update) {
        if (update == stop) throw std::runtime_error("killed");
      };
      EXPECT_THROW(evaluate(world, task, train, tests), std::runtime_error);
    }
    std::int64_t first = 0;
    task.after_update = [&](std::int64_t update) { first = first == 0 ? update : first; };
    evaluate(world, task, train, tests);
    EXPECT_EQ(first, 19);  // after the checkpoint of update 18
    EXPECT_EQ(stored(folder + "/whole.h5"), stored(folder + "/parts.h5"));
    EXPECT_EQ(stored(folder + "/whole.h5", "/bias"), stored(folder + "/parts.h5", "/bias"));
    world.barrier();
    EXPECT_FALSE(std::filesystem::exists(task.checkpoint));  // it has served its purpose
    world.barrier();
    task.after_update = [](std::int64_t update) {
      if (update == 5) throw std::runtime_error("killed");
    };
    EXPECT_THROW(evaluate(world, task, train, tests), std::runtime_error);
    task.after_update = {};
    task.protocol.rates.push_back(2);
    EXPECT_EQ(code_of(train, tests, task), ExitCode::input);  // the checkpoint of another grid
    world.barrier();
    if (world.is_root()) std::filesystem::remove(task.checkpoint);
    world.barrier();
  }
}

TEST_F(LinearMpi, RefusesWhatCannotBeLearnt) {
  const Rows train(60, 3, 2), tests(30, 3, 3);
  auto task = small_task();
  EXPECT_EQ(code_of(train, tests, task), ExitCode::ok);
  EXPECT_EQ(code_of(Rows(60, 1, 2), tests, task), ExitCode::file);  // one class only
  EXPECT_EQ(code_of(train, Rows(30, 4, 3), task), ExitCode::file);  // a class that the training set does not have
  auto rows = train;
  rows.values.back() = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code_of(rows, tests, task), ExitCode::numerics);
  rows = train;
  for (std::size_t i = 0; i < rows.values.size(); ++i)
    if (i % kWidth < 5) rows.values[i] = 3;
  EXPECT_EQ(code_of(rows, tests, task), ExitCode::numerics);  // one feature is constant
  task.subset.per_class = 1;
  EXPECT_EQ(code_of(train, tests, task), ExitCode::input);  // nothing can be held out
  task.select_on_test = true;
  EXPECT_EQ(code_of(train, tests, task), world.size() > 3 ? ExitCode::input : ExitCode::ok);  // 3 images
  task.subset.per_class = 1000;
  EXPECT_EQ(code_of(train, tests, task), ExitCode::input);
  task = small_task();
  task.protocol.rates = {1e39};
  EXPECT_EQ(code_of(train, tests, task), ExitCode::numerics);  // diverges
  auto outside = table(train, world);
  outside.info.classes = {"a", "b"};
  auto named = table(tests, world);
  named.info.classes = {"a", "b"};
  EXPECT_THROW(evaluate_linear(world, *table_source(world, outside, named), small_task()), Error);
}

TEST_F(LinearMpi, ImagesAreAugmentedAlikeOnAnyNumberOfRanks) {
  const test::ShardFolder shards(world, 24, 3);
  config::Model model;
  model.preset = "tiny";
  data::EvalOptions reading;
  reading.resize = 48;
  reading.crop = 40;
  reading.batch = 3;
  auto task = small_task();
  task.protocol.batch = 8;
  task.protocol.updates = 4;
  const auto run = [&](const comm::Communicator& comm, const std::string& head) {
    task.save_head = head;
    const auto data = data::DataSet::open(shards.path(), comm);
    FeatureExtractor extractor(model, {.dims = {}, .batchnorm = false, .prototypes = 0}, 3,
                               parse_features("trunk,res3:2x1"));
    return evaluate_linear(comm, *shard_source(comm, extractor, data, data, reading, 0.2), task);
  };
  const auto shared = run(world, folder + "/shared.h5");
  const auto whole = run(alone, folder + "/" + std::to_string(world.rank()) + ".h5");
  EXPECT_EQ(shared.test_images, 24U);
  EXPECT_EQ(shared.held_images, whole.held_images);
  EXPECT_LT(test::relative_error(stored(folder + "/shared.h5"), stored(task.save_head)), 1e-4);
}

}  // namespace
}  // namespace seer::eval
