// SPDX-License-Identifier: Apache-2.0
#include "seer/train/metrics.hpp"

#include <fcntl.h>
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
#include <string_view>

#include "seer/base/error.hpp"

namespace seer::train {
namespace {

[[noreturn]] void fail(const std::string& path, const char* doing) {
  const int reason = errno;
  throw Error(ExitCode::file, fmt::format("{} {}: {}", path, doing, std::strerror(reason)),
              "log.run_dir must be a writable folder with space left");
}

void write_all(int descriptor, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const auto written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail(path, "cannot be written");
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// A line stays if it is one of ours of an update that the resumed run will not do again.
bool belongs(const std::string& line, std::int64_t resumed_update) {
  const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return false;
  const auto update = object.find("update");
  return update != object.end() && update->is_number_integer() && update->get<std::int64_t>() <= resumed_update;
}

void drop_later_lines(const std::string& path, std::int64_t resumed_update) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return;  // a new run, or a pipe someone watches
  std::ifstream in(path);
  std::string kept, line;
  bool dropped = false;
  while (std::getline(in, line)) {
    // getline hides whether the last line was ended: one that was not is torn even if what is there parses.
    if (!in.eof() && belongs(line, resumed_update)) {
      kept += line + '\n';
    } else {
      dropped = true;
    }
  }
  if (!dropped) return;
  const auto temporary = path + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) fail(temporary, "cannot be created");
  try {
    write_all(descriptor, kept, temporary);
    if (::fsync(descriptor) != 0) fail(temporary, "cannot be synced");
  } catch (...) {
    ::close(descriptor);
    throw;
  }
  ::close(descriptor);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail(temporary, "cannot be renamed");
}

}  // namespace

std::vector<Scalar> scalars(const UpdateRecord& r) {
  const auto integer = [](const char* name, std::int64_t value) {
    return Scalar{name, static_cast<double>(value), true};
  };
  const auto real = [](const char* name, double value) { return Scalar{name, value, false}; };
  return {integer("update", r.update),
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
          integer("device_bytes", r.device_bytes),
          real("code_entropy", r.code_entropy),
          real("prediction_entropy", r.prediction_entropy),
          integer("bad_images", r.bad_images),
          integer("skipped", r.skipped),
          real("epoch", r.epoch),
          real("eta_s", r.eta_s < 0 ? std::numeric_limits<double>::quiet_NaN() : r.eta_s)};
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e15) return "-";
  const auto whole = std::llround(seconds);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string progress_line(const UpdateRecord& r, std::int64_t total_updates) {
  // Warm-up starts of small runs would all read 0.0000.
  const auto lr = r.lr != 0 && std::abs(r.lr) < 1e-3 ? fmt::format("{:.2e}", r.lr) : fmt::format("{:.4f}", r.lr);
  auto line = fmt::format("update {}/{}  loss {:.4f}  lr {}  {:.1f} images/s  eta {}", r.update, total_updates, r.loss,
                          lr, r.images_per_s, format_duration(r.eta_s));
  if (r.bad_images > 0) line += fmt::format("  bad images {}", r.bad_images);
  if (r.skipped > 0) line += fmt::format("  skipped {}", r.skipped);
  return line;
}

Metrics::Metrics(const std::string& run_dir, std::int64_t resumed_update)
    : path_((std::filesystem::path(run_dir) / "metrics.jsonl").string()) {
  drop_later_lines(path_, resumed_update);
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path_, "cannot be opened");
}

Metrics::~Metrics() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Metrics::write(const UpdateRecord& record) {
  nlohmann::ordered_json object;
  for (const auto& s : scalars(record)) {
    if (s.integer) {
      object[s.name] = static_cast<std::int64_t>(s.value);
    } else {
      object[s.name] = s.value;  // nlohmann writes non-finite numbers as null
    }
  }
  write_all(descriptor_, object.dump() + '\n', path_);
}

}  // namespace seer::train
