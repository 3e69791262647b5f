// SPDX-License-Identifier: Apache-2.0
#include "seer/run/records.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "event.pb.h"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::run {
namespace {

namespace fs = std::filesystem;

// Keeps a line if it is a record of an update that the resumed run will not repeat.
bool belongs(const std::string& line, std::int64_t resumed_update, std::set<std::int64_t>& tests) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const auto update = object.find("update");
  if (update == object.end() || !update->is_number_integer() || update->get<std::int64_t>() > resumed_update)
    return false;
  if (object.contains("test_images")) tests.insert(update->get<std::int64_t>());
  return true;
}

/// Returns the path of the file, without the lines of later updates. Adds the updates of tests that stay in it.
std::string drop_later_lines(const std::string& run_dir, std::int64_t resumed_update, std::set<std::int64_t>& tests) {
  auto path = (fs::path(run_dir) / "metrics.jsonl").string();
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return path;  // a new run, or a pipe someone watches
  std::ifstream in(path);
  std::string kept, line;
  bool dropped = false;
  while (std::getline(in, line)) {
    // getline hides whether the last line had an end. Without one it is torn, even if it parses.
    const bool keep = !in.eof() && belongs(line, resumed_update, tests);
    if (keep) kept += line + '\n';
    dropped = dropped || !keep;
  }
  if (!dropped) return path;
  const auto target = fs::canonical(path).string();  // if it is a link, replaces its target
  checkpoint::replace_file(target, [&](const std::string& temporary) { checkpoint::write_text(temporary, kept); });
  return path;
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void append_little_endian(std::string& out, auto value) {
  for (std::size_t i = 0; i < sizeof value; ++i) out += static_cast<char>((value >> (8 * i)) & 0xffU);
}

constexpr const char* kRemedy =
    "log.run_dir must be a writable folder with space left; log.tensorboard = false does without the file";

/// TensorBoard orders a run's files by the second in their names. Two starts within one second must not share a file.
std::string new_path(const std::string& run_dir) {
  auto second = static_cast<std::int64_t>(seconds_since_1970());
  std::string path;
  std::error_code ignored;
  do path = fmt::format("{}/events.out.tfevents.{:010}.{}", run_dir, second++, log::host_name());
  while (fs::exists(path, ignored));
  return path;
}

// Tags before "/" are the folds of TensorBoard's page.
std::string tag_of(const Scalar& scalar, const std::string& method) {
  const std::string_view name = scalar.name;
  std::string_view fold = "run";
  if (name.ends_with("_ms") || name.starts_with("images_per_")) fold = "time";
  if (name == "loss" || name == "lr" || name == "grad_norm" || name == "loss_scale") fold = "train";
  if (name.ends_with("_bytes")) fold = "memory";
  if (name.starts_with("watch_")) fold = "watch";
  if (scalar.of_method) fold = method;
  return fmt::format("{}/{}", fold, name);
}

constexpr const char* kUses[] = {"set-up", "update", "checkpoint", "evaluation"};  // of TrafficLedger::Use

double mean(std::int64_t sum, std::int64_t updates) {
  return static_cast<double>(sum) / static_cast<double>(std::max<std::int64_t>(updates, 1));
}

}  // namespace

AppendFile::AppendFile(std::string path, std::string remedy)
    : path_(std::move(path)),
      remedy_(std::move(remedy)),
      descriptor_(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) fail("cannot be opened", errno);
}

AppendFile::~AppendFile() {
  ::close(descriptor_);
}

void AppendFile::append(std::string_view record) {
  struct stat before {};
  const bool regular = ::fstat(descriptor_, &before) == 0 && S_ISREG(before.st_mode);
  while (!record.empty()) {
    const auto written = ::write(descriptor_, record.data(), record.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      const int reason = errno;
      if (regular) [[maybe_unused]]
        const int cut = ::ftruncate(descriptor_, before.st_size);
      fail("cannot be written", reason);
    }
    record.remove_prefix(static_cast<std::size_t>(written));
  }
}

void AppendFile::fail(const char* doing, int reason) const {
  throw Error(ExitCode::file, fmt::format("{} {}: {}", path_, doing, std::strerror(reason)), remedy_);
}

std::vector<Scalar> scalars(const UpdateRecord& r) {
  std::vector<Scalar> out;
  const auto integer = [&](const char* name, std::int64_t value) {
    out.push_back({name, static_cast<double>(value), true});
  };
  const auto real = [&](const char* name, double value) { out.push_back({name, value}); };
  const auto ms = [&](const char* name, train::Phase phase) { real(name, r.times.per_update_ms(phase)); };
  integer("update", r.update);
  real("loss", r.loss);
  real("lr", r.lr);
  real("images_per_s", r.images_per_s);
  if (r.images_per_wh > 0) real("images_per_wh", r.images_per_wh);
  real("step_ms", r.times.step_ms());
  ms("data_wait_ms", train::Phase::data_wait);
  ms("forward_ms", train::Phase::forward);
  ms("loss_ms", train::Phase::loss);
  ms("backward_ms", train::Phase::backward);
  ms("reduce_ms", train::Phase::reduce);
  ms("optimizer_ms", train::Phase::optimizer);
  ms("bn_sync_ms", train::Phase::bn_sync);
  ms("gather_ms", train::Phase::gather);
  real("hidden_ms", r.times.hidden_per_update_ms());
  real("grad_norm", r.grad_norm);
  real("loss_scale", r.loss_scale);
  integer("host_bytes", r.host_bytes);
  integer("device_bytes", r.device_bytes);
  for (const auto& figure : r.figures) out.push_back({figure.name, figure.value, false, true});
  for (const auto& figure : r.evaluation) real(figure.name.c_str(), figure.value);
  integer("bad_images", r.bad_images);
  integer("skipped", r.skipped);
  real("epoch", r.epoch);
  real("eta_s", r.eta_s < 0 ? std::numeric_limits<double>::quiet_NaN() : r.eta_s);
  return out;
}

std::string to_text(const TestRecord& record) {
  auto text = fmt::format("test after {} updates:", record.update);
  for (const auto& figure : record.figures) {
    const bool count = figure.name == "test_images";
    text +=
        count ? fmt::format(" of {:.0f} images", figure.value) : fmt::format(" {} {:.2f},", figure.name, figure.value);
  }
  return text;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e15) return "-";
  const auto whole = std::llround(seconds);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string progress_line(const UpdateRecord& r, std::int64_t total_updates) {
  // Otherwise warm-up starts of small runs would all read 0.0000.
  const auto lr = r.lr != 0 && std::abs(r.lr) < 1e-3 ? fmt::format("{:.2e}", r.lr) : fmt::format("{:.4f}", r.lr);
  auto line = fmt::format("update {}/{}  loss {:.4f}  lr {}  {:.1f} images/s  eta {}", r.update, total_updates, r.loss,
                          lr, r.images_per_s, format_duration(r.eta_s));
  if (r.bad_images > 0) line += fmt::format("  bad images {}", r.bad_images);
  if (r.skipped > 0) line += fmt::format("  skipped {}", r.skipped);
  return line;
}

Metrics::Metrics(const std::string& run_dir, std::int64_t resumed_update)
    : file_(drop_later_lines(run_dir, resumed_update, tests_),
            "log.run_dir must be a writable folder with space left") {}

void Metrics::write(const UpdateRecord& record) {
  using Json = nlohmann::ordered_json;  // writes non-finite numbers as null
  Json object;
  for (const auto& s : scalars(record))
    object[s.name] = s.integer ? Json(static_cast<std::int64_t>(s.value)) : Json(s.value);
  file_.append(object.dump() + '\n');
}

void Metrics::write(const TestRecord& record) {
  nlohmann::ordered_json object = {{"update", record.update}};
  for (const auto& figure : record.figures) object[figure.name] = figure.value;
  file_.append(object.dump() + '\n');
}

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  const auto crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

EventFile::EventFile(const std::string& run_dir, std::int64_t resumed_update) : file_(new_path(run_dir), kRemedy) {
  event::Event version;
  version.set_wall_time(seconds_since_1970());
  version.set_file_version("brain.Event:2");
  append(version.SerializeAsString());
  event::Event start;
  start.set_wall_time(seconds_since_1970());
  start.set_step(resumed_update + 1);  // TensorBoard drops points of this step and later ones
  start.mutable_session_log()->set_status(event::SessionLog::START);
  append(start.SerializeAsString());
}

void EventFile::write(const UpdateRecord& record) {
  event::Event event;
  event.set_wall_time(seconds_since_1970());
  event.set_step(record.update);
  for (const auto& s : scalars(record)) {
    if (s.name == "update") continue;
    auto* value = event.mutable_summary()->add_value();
    value->set_tag(tag_of(s, record.method));
    value->set_simple_value(static_cast<float>(s.value));
  }
  append(event.SerializeAsString());
}

void EventFile::write(const TestRecord& record) {
  event::Event event;
  event.set_wall_time(seconds_since_1970());
  event.set_step(record.update);
  for (const auto& figure : record.figures) {
    auto* value = event.mutable_summary()->add_value();
    value->set_tag("test/" + figure.name);
    value->set_simple_value(static_cast<float>(figure.value));
  }
  append(event.SerializeAsString());
}

void EventFile::append(const std::string& event) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(event.size()));
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  file_.append(record);
}

void TrafficLedger::close(Use use) {
  for (const auto& now : counters_()) {
    const Counter counter{now.name, now.kind};
    auto& before = seen_[counter];
    if (now.calls > before.calls) {
      auto& sum = sums_[{use, counter}];
      const auto calls = sum.calls + now.calls - before.calls, bytes = sum.bytes + now.bytes - before.bytes;
      sum = now;
      sum.calls = calls;
      sum.bytes = bytes;
    }
    before = now;
  }
}

std::string to_table(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates) {
  std::string text;
  for (const auto& [use, t] : rows) {
    if (use != TrafficLedger::Use::update) continue;
    if (text.empty())
      text = fmt::format("messages per update, mean of {} updates on rank 0\n  {:<12}{:<16}{:>7}{:>10}{:>12}", updates,
                         "among", "kind", "ranks", "calls", "MiB");
    text += fmt::format("\n  {:<12}{:<16}{:>7}{:>10.2f}{:>12.3f}", t.name, t.kind, t.group_size, mean(t.calls, updates),
                        mean(t.bytes, updates) / (1 << 20));
  }
  return text;
}

std::string to_json(const std::vector<TrafficLedger::Row>& rows, std::int64_t updates, std::int64_t logged, int ranks) {
  nlohmann::ordered_json out = {
      {"ranks", ranks}, {"updates", updates}, {"logged_updates", logged}, {"traffic", nlohmann::ordered_json::array()}};
  for (const auto& [use, t] : rows) {
    nlohmann::ordered_json row = {{"use", kUses[static_cast<std::size_t>(use)]},
                                  {"name", t.name},
                                  {"kind", t.kind},
                                  {"group_size", t.group_size},
                                  {"calls", t.calls},
                                  {"bytes", t.bytes}};
    if (use == TrafficLedger::Use::update) {
      row["calls_per_update"] = mean(t.calls, updates);
      row["bytes_per_update"] = mean(t.bytes, updates);
    }
    out["traffic"].push_back(row);
  }
  return out.dump(2) + "\n";
}

}  // namespace seer::run
