// SPDX-License-Identifier: Apache-2.0
#include "seer/run/tensorboard.hpp"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <utility>

#include "event.pb.h"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::run {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0x82f63b78U : 0U);
    table[i] = value;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <class Unsigned>
void append_little_endian(std::string& out, Unsigned value) {
  for (std::size_t i = 0; i < sizeof(Unsigned); ++i) out += static_cast<char>((value >> (8 * i)) & 0xffU);
}

constexpr const char* kRemedy =
    "log.run_dir must be a writable folder with space left; log.tensorboard = false does without the file";

// Tags before "/" are the folds of TensorBoard's page.
std::string tag_of(const Scalar& scalar, const std::string& method) {
  const std::string_view name = scalar.name;
  std::string_view fold = "run";
  if (name.ends_with("_ms") || name == "images_per_s") fold = "time";
  if (name == "loss" || name == "lr" || name == "grad_norm" || name == "loss_scale") fold = "train";
  if (name.ends_with("_bytes")) fold = "memory";
  if (scalar.of_method) fold = method;
  return fmt::format("{}/{}", fold, name);
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const char byte : bytes) crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<unsigned char>(byte)) & 0xffU];
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  const auto crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

EventFile::EventFile(const std::string& run_dir, std::int64_t resumed_update) {
  // TensorBoard orders a run's files by the second in their names. Two starts within one second must not share a file.
  auto second = static_cast<std::int64_t>(seconds_since_1970());
  for (int attempt = 0; !file_; ++attempt, ++second) {
    const auto path = fmt::format("{}/events.out.tfevents.{:010}.{}", run_dir, second, log::host_name());
    AppendFile file(path, AppendFile::Start::must_be_new, kRemedy);
    if (file.is_open()) file_.emplace(std::move(file));
    if (attempt > 100) throw Error(ExitCode::file, fmt::format("{} and a hundred like it are there", path), kRemedy);
  }
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

void EventFile::append(const std::string& event) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(event.size()));
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  file_->append(record);
}

}  // namespace seer::run
