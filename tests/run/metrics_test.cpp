// SPDX-License-Identifier: Apache-2.0
#include "seer/run/records.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "run/temporary_folder.hpp"
#include "seer/base/error.hpp"

namespace seer::run {
namespace {

using namespace train;

UpdateRecord record_of(std::int64_t update) {
  UpdateRecord r;
  r.update = update;
  r.loss = 3.2012;
  r.lr = 0.291;
  r.images_per_s = 412.06;
  r.host_bytes = 123456789012;
  r.eta_s = 751;
  r.figures = {{"code_entropy", 2.5}};
  return r;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::int64_t> updates_of(const std::string& path) {
  std::vector<std::int64_t> updates;
  for (const auto& line : lines_of(path))
    updates.push_back(nlohmann::json::parse(line).at("update").get<std::int64_t>());
  return updates;
}

TEST(Metrics, WritesEveryKeyOfTheDesignOncePerUpdate) {
  const TemporaryFolder folder;
  Metrics metrics(folder.path(), 0);
  metrics.write(record_of(1));
  const auto lines = lines_of(metrics.path());  // the line is there while the file is still open
  ASSERT_EQ(lines.size(), 1U);
  const auto object = nlohmann::json::parse(lines[0]);
  for (const char* key :
       {"update",      "loss",         "lr",           "images_per_s", "step_ms",   "data_wait_ms", "forward_ms",
        "backward_ms", "reduce_ms",    "optimizer_ms", "gather_ms",    "hidden_ms", "grad_norm",    "loss_scale",
        "host_bytes",  "device_bytes", "code_entropy", "bad_images",   "skipped",   "epoch",        "eta_s"}) {
    EXPECT_TRUE(object.contains(key)) << key;
  }
  EXPECT_FALSE(object.contains("images_per_wh")) << "unknown";
  auto known = record_of(2);
  known.images_per_wh = 5000;
  metrics.write(known);
  EXPECT_EQ(nlohmann::json::parse(lines_of(metrics.path()).at(1))["images_per_wh"], 5000);
  EXPECT_EQ(object["host_bytes"].get<std::int64_t>(), 123456789012);
  EXPECT_TRUE(object["host_bytes"].is_number_integer());
  EXPECT_DOUBLE_EQ(object["loss"].get<double>(), 3.2012);
  EXPECT_EQ(lines[0].substr(0, 12), "{\"update\":1,");
}

TEST(Metrics, TimesOfAnUpdateAreMeans) {
  Phases phases;
  phases.add(Phase::reduce, 0.5);
  phases.end_update();
  phases.add(Phase::reduce, 1.5);
  phases.end_update();
  UpdateRecord record;
  record.times = phases.take_interval();
  std::map<std::string, double> found;
  for (const auto& s : scalars(record)) found[s.name] = s.value;
  EXPECT_DOUBLE_EQ(found.at("reduce_ms"), 1);
  EXPECT_DOUBLE_EQ(found.at("step_ms"), record.times.wall_ms / 2);
}

TEST(Metrics, NamesAreUnique) {
  std::set<std::string> names;
  for (const auto& s : scalars({})) EXPECT_TRUE(names.insert(s.name).second) << s.name;
}

TEST(Metrics, NonFiniteValuesAreNull) {
  const TemporaryFolder folder;
  Metrics metrics(folder.path(), 0);
  auto r = record_of(1);
  r.loss = std::numeric_limits<double>::quiet_NaN();
  r.grad_norm = std::numeric_limits<double>::infinity();
  r.eta_s = -1;  // not known
  metrics.write(r);
  const auto object = nlohmann::json::parse(lines_of(metrics.path()).at(0));
  EXPECT_TRUE(object["loss"].is_null());
  EXPECT_TRUE(object["grad_norm"].is_null());
  EXPECT_TRUE(object["eta_s"].is_null());
}

TEST(Metrics, ResumeDropsLaterUpdatesAndTornLines) {
  const TemporaryFolder folder;
  {
    Metrics metrics(folder.path(), 0);
    for (std::int64_t u = 10; u <= 50; u += 10) metrics.write(record_of(u));
  }
  const auto path = folder.path() + "/metrics.jsonl";
  const auto first = lines_of(path).at(0);
  std::ofstream(path, std::ios::app) << "{\"update\":60,\"los";  // killed in the middle
  Metrics resumed(folder.path(), 30);
  EXPECT_EQ(updates_of(path), (std::vector<std::int64_t>{10, 20, 30}));
  EXPECT_EQ(lines_of(path).at(0), first);  // kept byte for byte
  resumed.write(record_of(40));
  EXPECT_EQ(updates_of(path), (std::vector<std::int64_t>{10, 20, 30, 40}));
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
}

TEST(Metrics, KnowsTheTestsThatItKeeps) {
  const TemporaryFolder folder;
  {
    Metrics metrics(folder.path(), 0);
    for (const std::int64_t u : {10, 20}) {
      metrics.write(record_of(u));
      metrics.write(TestRecord{u, {{"test_top1", 50}, {"test_images", 8}}});
    }
    metrics.write(record_of(30));
  }
  const Metrics complete(folder.path(), 30), earlier(folder.path(), 10);
  EXPECT_TRUE(complete.has_test(20));
  EXPECT_FALSE(complete.has_test(30));
  EXPECT_TRUE(earlier.has_test(10));
  EXPECT_FALSE(earlier.has_test(20)) << "it is tested again";
}

TEST(Metrics, ALinkStaysWhenLinesAreDropped) {
  const TemporaryFolder folder, elsewhere;
  std::filesystem::create_symlink(elsewhere.path() + "/records", folder.path() + "/metrics.jsonl");
  {
    Metrics metrics(folder.path(), 0);
    for (std::int64_t u = 10; u <= 30; u += 10) metrics.write(record_of(u));
  }
  Metrics resumed(folder.path(), 20);
  EXPECT_TRUE(std::filesystem::is_symlink(resumed.path()));
  EXPECT_EQ(updates_of(elsewhere.path() + "/records"), (std::vector<std::int64_t>{10, 20}));
}

TEST(Metrics, LastLineWithoutNewlineIsTornEvenIfItParses) {
  const TemporaryFolder folder;
  const auto path = folder.path() + "/metrics.jsonl";
  std::ofstream(path) << "{\"update\":1}\n{\"update\":2}";
  const Metrics resumed(folder.path(), 5);
  EXPECT_EQ(updates_of(path), (std::vector<std::int64_t>{1}));
}

TEST(Metrics, NewRunStartsAnEmptyFile) {
  const TemporaryFolder folder;
  { Metrics(folder.path(), 0).write(record_of(10)); }
  const Metrics fresh(folder.path(), 0);
  EXPECT_TRUE(lines_of(fresh.path()).empty());
}

TEST(Metrics, MissingFolderIsAFileErrorThatNamesIt) {
  const TemporaryFolder folder;
  const auto missing = folder.path() + "/missing";
  try {
    const Metrics metrics(missing, 0);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file);
    EXPECT_NE(error.message().find(missing + "/metrics.jsonl"), std::string::npos) << error.message();
  }
}

TEST(Metrics, FullDiskIsAFileError) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/full", folder.path() + "/metrics.jsonl");
  Metrics metrics(folder.path(), 0);
  try {
    metrics.write(record_of(1));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::file);
    EXPECT_NE(error.message().find("No space left"), std::string::npos) << error.message();
  }
}

TEST(ProgressLine, ReadsAsDocumented) {
  auto r = record_of(120);
  EXPECT_EQ(progress_line(r, 4000), "update 120/4000  loss 3.2012  lr 0.2910  412.1 images/s  eta 0:12:31");
  r.lr = 0.000125;
  r.bad_images = 3;
  r.skipped = 1;
  r.eta_s = -1;
  EXPECT_EQ(progress_line(r, 4000),
            "update 120/4000  loss 3.2012  lr 1.25e-04  412.1 images/s  eta -  bad images 3  skipped 1");
}

TEST(ProgressLine, Durations) {
  EXPECT_EQ(format_duration(0), "0:00:00");
  EXPECT_EQ(format_duration(59.6), "0:01:00");
  EXPECT_EQ(format_duration(3600 * 123 + 4 * 60 + 5), "123:04:05");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "-");
  EXPECT_EQ(format_duration(std::nan("")), "-");
}

}  // namespace
}  // namespace seer::run
