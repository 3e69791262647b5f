// SPDX-License-Identifier: Apache-2.0
#include "seer/run/metrics.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"

namespace seer::run {
namespace {

constexpr const char* kRemedy = "log.run_dir must be a writable folder with space left";

[[noreturn]] void fail(const std::string& path, const char* doing) {
  const int reason = errno;
  throw Error(ExitCode::file, fmt::format("{} {}: {}", path, doing, std::strerror(reason)), kRemedy);
}

std::string path_in(const std::string& run_dir) {
  return (std::filesystem::path(run_dir) / "metrics.jsonl").string();
}

// Keeps a line if it is a record of an update that the resumed run will not repeat.
bool belongs(const std::string& line, std::int64_t resumed_update) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const auto update = object.find("update");
  return update != object.end() && update->is_number_integer() && update->get<std::int64_t>() <= resumed_update;
}

/// Returns the path.
std::string drop_later_lines(std::string path, std::int64_t resumed_update) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return path;  // a new run, or a pipe someone watches
  std::ifstream in(path);
  std::string kept, line;
  bool dropped = false;
  while (std::getline(in, line)) {
    // getline hides whether the last line had an end. Without one it is torn, even if it parses.
    if (!in.eof() && belongs(line, resumed_update)) {
      kept += line + '\n';
    } else {
      dropped = true;
    }
  }
  if (!dropped) return path;
  const auto target = std::filesystem::canonical(path).string();  // if it is a link, replaces its target
  const auto temporary = target + ".tmp";
  ::unlink(temporary.c_str());
  AppendFile(temporary, AppendFile::Start::append, kRemedy).append_durably(kept);
  if (std::rename(temporary.c_str(), target.c_str()) != 0) fail(temporary, "cannot be renamed");
  return path;
}

}  // namespace

void fill(UpdateRecord& record, const train::PhaseTimes& times) {
  record.step_ms = times.step_ms();
  record.data_wait_ms = times.per_update_ms(train::Phase::data_wait);
  record.forward_ms = times.per_update_ms(train::Phase::forward);
  record.loss_ms = times.per_update_ms(train::Phase::loss);
  record.backward_ms = times.per_update_ms(train::Phase::backward);
  record.reduce_ms = times.per_update_ms(train::Phase::reduce);
  record.optimizer_ms = times.per_update_ms(train::Phase::optimizer);
  record.gather_ms = times.per_update_ms(train::Phase::gather);
  record.hidden_ms = times.hidden_per_update_ms();
  record.bn_sync_ms = times.per_update_ms(train::Phase::bn_sync);
}

std::vector<Scalar> scalars(const UpdateRecord& r) {
  const auto integer = [](const char* name, std::int64_t value) {
    return Scalar{name, static_cast<double>(value), true};
  };
  const auto real = [](const char* name, double value) { return Scalar{name, value, false}; };
  std::vector<Scalar> out = {integer("update", r.update),
                             real("loss", r.loss),
                             real("lr", r.lr),
                             real("images_per_s", r.images_per_s),
                             real("step_ms", r.step_ms),
                             real("data_wait_ms", r.data_wait_ms),
                             real("forward_ms", r.forward_ms),
                             real("loss_ms", r.loss_ms),
                             real("backward_ms", r.backward_ms),
                             real("reduce_ms", r.reduce_ms),
                             real("optimizer_ms", r.optimizer_ms),
                             real("bn_sync_ms", r.bn_sync_ms),
                             real("gather_ms", r.gather_ms),
                             real("hidden_ms", r.hidden_ms),
                             real("grad_norm", r.grad_norm),
                             real("loss_scale", r.loss_scale),
                             integer("host_bytes", r.host_bytes),
                             integer("device_bytes", r.device_bytes)};
  for (const auto& figure : r.figures) out.push_back({figure.name, figure.value, false, true});
  for (const auto& last : {integer("bad_images", r.bad_images), integer("skipped", r.skipped), real("epoch", r.epoch),
                           real("eta_s", r.eta_s < 0 ? std::numeric_limits<double>::quiet_NaN() : r.eta_s)}) {
    out.push_back(last);
  }
  return out;
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
    : file_(drop_later_lines(path_in(run_dir), resumed_update), AppendFile::Start::append, kRemedy) {}

void Metrics::write(const UpdateRecord& record) {
  nlohmann::ordered_json object;
  for (const auto& s : scalars(record)) {
    if (s.integer) {
      object[s.name] = static_cast<std::int64_t>(s.value);
    } else {
      object[s.name] = s.value;  // nlohmann writes non-finite numbers as null
    }
  }
  file_.append(object.dump() + '\n');
}

}  // namespace seer::run
