// SPDX-License-Identifier: Apache-2.0
#include "choices.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"

namespace seer::dnn {
namespace {

constexpr int kFormat = 1;

/// The name is empty if none of them works.
Choice fastest(const std::vector<Candidate>& candidates) {
  Choice best{"", std::numeric_limits<double>::infinity()};
  for (const auto& candidate : candidates) {
    const auto us = candidate.time_us(best.microseconds);
    if (us && *us < best.microseconds) best = {candidate.name, *us};
  }
  return best;
}

Error none(const std::string& what) {
  return {ExitCode::device, fmt::format("no engine can run {}", what),
          "use a larger workspace, a smaller batch or another precision"};
}

auto position(const std::vector<Candidate>& candidates, const std::string& wanted) {
  return std::find_if(candidates.begin(), candidates.end(), [&](const auto& c) { return c.name == wanted; });
}

/// Position of the root's choice. `file`: where the choice may come from.
std::size_t agreed(const std::vector<Candidate>& candidates, const std::string& name, const std::string& what,
                   const std::string& file) {
  const auto taken = position(candidates, name);
  if (taken == candidates.end() || !taken->ready()) {
    throw Error(ExitCode::device,
                fmt::format("rank 0 chose engine {} for {}, but it {} here", name, what,
                            taken == candidates.end() ? "is not available" : "cannot be made ready"),
                fmt::format("use the same devices, drivers and libraries on all nodes{}",
                            file.empty() ? "" : "; otherwise delete " + file));
  }
  return static_cast<std::size_t>(taken - candidates.begin());
}

}  // namespace

Choices::Choices(const std::string& directory, bool writes)
    : path_(directory.empty() ? "" : directory + "/dnn_choices.json"), writes_(writes) {
  read();
}

void Choices::read() {
  std::ifstream file(path_);
  if (!file) return;
  try {
    const auto json = nlohmann::json::parse(file);
    if (json.at("format") != kFormat) return;
    for (const auto& [key, value] : json.at("choices").items())
      choices_.insert({key, {value.at("name").get<std::string>(), value.at("us").get<double>()}});
  } catch (const nlohmann::json::exception& error) {
    log::warn(fmt::format("{} cannot be read and is ignored: {}", path_, error.what()));
  }
}

void Choices::write() const {
  auto all = nlohmann::json::object();
  for (const auto& [key, choice] : choices_) all[key] = {{"name", choice.name}, {"us", choice.microseconds}};
  const std::string text = nlohmann::json{{"format", kFormat}, {"choices", all}}.dump(1);
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), failed);
  // Renaming makes the change atomic: another job may be reading the file.
  const std::string next = fmt::format("{}.{}.tmp", path_, getpid());
  std::ofstream file(next);
  file << text << "\n";
  file.close();
  if (!file) failed = std::make_error_code(std::errc::io_error);
  if (!failed) std::filesystem::rename(next, path_, failed);
  if (failed) {
    std::error_code ignored;
    std::filesystem::remove(next, ignored);
    log::warn(fmt::format("{} cannot be written ({}): convolutions are measured again in the next run", path_,
                          failed.message()));
  }
}

std::optional<Choice> Choices::find(const std::string& key) const {
  const auto found = choices_.find(key);
  return found == choices_.end() ? std::nullopt : std::optional(found->second);
}

void Choices::keep(const std::string& key, const Choice& choice) {
  choices_[key] = choice;
  if (path_.empty() || !writes_) return;
  read();  // adds what other processes saved; keys known here keep their values
  write();
}

std::size_t first_ready(const std::vector<Candidate>& candidates, const Agree& agree, const std::string& what) {
  const auto found = std::find_if(candidates.begin(), candidates.end(), [](const auto& c) { return c.ready(); });
  if (found == candidates.end()) throw none(what);
  if (!agree) return static_cast<std::size_t>(found - candidates.begin());
  return agreed(candidates, agree(found->name), what, "");
}

std::size_t choose(const std::string& key, const std::vector<Candidate>& candidates, Choices& choices,
                   const Agree& agree, const std::string& what) {
  const auto kept = choices.find(key);
  const auto known_at = kept ? position(candidates, kept->name) : candidates.end();
  // If the saved choice is missing or outdated, this rank measures. In both cases all ranks then take the root's
  // choice.
  const bool known = known_at != candidates.end() && known_at->ready();
  const Choice mine = known ? *kept : fastest(candidates);
  const std::string name = agree ? agree(mine.name) : mine.name;
  if (name.empty()) throw none(what);
  const auto taken = agreed(candidates, name, what, choices.path());
  if (!known && mine.name == name) choices.keep(key, mine);
  return taken;
}

std::string choice_key(const std::string& machine, const DeviceOptions& options, Direction direction,
                       const ConvShape& s, DType type, std::int64_t alignment_bytes) {
  constexpr const char* kDirections[] = {"forward", "backward_data", "backward_weights"};
  return fmt::format(
      "{} | {}{}{}workspace {} | {} {} n {} h {} w {} c {} {} kernel {} stride {} pad {} groups {} alignment {}",
      machine, options.tf32 ? "tf32, " : "", options.deterministic ? "deterministic, " : "",
      options.float_weight_gradients ? "float gradients, " : "", options.workspace_bytes,
      kDirections[static_cast<int>(direction)],
      type == DType::f32    ? "f32"
      : type == DType::bf16 ? "bf16"
                            : "f16",
      s.n, s.h, s.w, s.c_in, s.c_out, s.kernel, s.stride, s.pad, s.groups, alignment_bytes);
}

}  // namespace seer::dnn
