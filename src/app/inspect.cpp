// SPDX-License-Identifier: Apache-2.0
// seer inspect: shows what a shard, a folder of shards, a checkpoint, a weights file or a safetensors file holds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/data/inspect.hpp"
#include "seer/weights/safetensors.hpp"

namespace seer::app {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct Options {
  std::string path;
  bool json = false, verify = false;
};

ordered_json inspect_checkpoint(const std::string& folder, bool verify, const comm::Communicator& alone) {
  ordered_json out = {{"file", folder}, {"kind", "checkpoint"}};
  const std::string problem = verify ? checkpoint::verify(folder) : "";
  if (!problem.empty()) {
    out["verified"] = false;
    out["problem"] = problem;
    return out;
  }
  const auto manifest = checkpoint::read_manifest(folder);
  std::int64_t values = 0;
  for (const auto& t : manifest.tensors) values += t.group == "model" ? t.elements() : 0;
  out["update"] = manifest.update;
  out["ranks"] = manifest.ranks;
  out["build"] = manifest.build;
  out["parameters"] = values;
  if (verify) out["verified"] = true;
  out["state"] = ordered_json::parse(data::inspect_hdf5(folder + "/state.h5", false, alone));
  return out;
}

ordered_json inspect_safetensors(const std::string& path) {
  const weights::SafetensorsFile file(path);
  ordered_json tensors = ordered_json::array();
  std::int64_t values = 0;
  for (const auto& [name, entry] : file.entries()) {
    std::int64_t count = 1;
    for (auto n : entry.shape) count *= n;
    values += count;
    tensors.push_back(
        {{"name", name}, {"type", entry.type}, {"shape", entry.shape}, {"bytes", entry.end - entry.begin}});
  }
  return {
      {"file", path}, {"kind", "safetensors"}, {"metadata", file.metadata()}, {"values", values}, {"tensors", tensors}};
}

ordered_json inspect(const Options& o, const comm::Communicator& alone) {
  std::error_code error;
  if (!fs::exists(o.path, error)) throw Error(ExitCode::file, fmt::format("{}: no such file or folder", o.path));
  if (!fs::is_directory(o.path, error)) {
    if (o.path.ends_with(".safetensors")) {
      auto out = inspect_safetensors(o.path);
      if (o.verify) {
        out["verified"] = false;
        out["problem"] = data::kNothingToCompare;
      }
      return out;
    }
    return ordered_json::parse(data::inspect_hdf5(o.path, o.verify, alone));
  }
  if (fs::exists(o.path + "/manifest.json", error) || fs::exists(o.path + "/state.h5", error)) {
    return inspect_checkpoint(o.path, o.verify, alone);
  }
  return ordered_json::parse(data::inspect_folder(o.path, o.verify, alone));
}

// For people: one line per value, and one line per object of a list.
void print(const ordered_json& j, int indent = 0) {
  for (const auto& [key, value] : j.items()) {
    const std::string pad(static_cast<std::size_t>(indent), ' ');
    if (value.is_object() && !value.empty()) {
      std::fputs(fmt::format("{}{}:\n", pad, key).c_str(), stdout);
      print(value, indent + 2);
    } else if (value.is_array() && !value.empty() && value[0].is_object()) {
      std::fputs(fmt::format("{}{}: {}\n", pad, key, value.size()).c_str(), stdout);
      for (const auto& item : value) {
        if (item.contains("file")) {
          print(item, indent + 2);
          continue;
        }
        std::string line = pad + "  " + item.value("name", "");
        for (const auto& [k, v] : item.items()) {
          if (k != "name" && !(v.is_object() && v.empty()))
            line += fmt::format("  {}", v.is_string() ? v.get<std::string>() : v.dump());
        }
        std::fputs((line + "\n").c_str(), stdout);
      }
    } else {
      std::fputs(
          fmt::format("{}{:<20} {}\n", pad, key, value.is_string() ? value.get<std::string>() : value.dump()).c_str(),
          stdout);
    }
  }
}

}  // namespace

Run add_inspect(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command
      .add_option("FILE", options->path,
                  "Shard, weights or safetensors file, folder of shards, checkpoint folder, or run folder (its newest\n"
                  "checkpoint)")
      ->required();
  command.add_flag("--json", options->json, "Print one JSON object");
  command.add_flag("--verify", options->verify, "Read everything and compare the checksums");
  return [options](const comm::Communicator& world) {
    const comm::Communicator alone = world.split(world.rank());
    comm::agree(world, "inspecting", [&] {
      if (!world.is_root()) return;
      options->path = checkpoint::resolve(options->path);
      const ordered_json found = inspect(*options, alone);
      if (options->json) {
        std::fputs((found.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n").c_str(), stdout);
      } else {
        print(found);
      }
      std::fflush(stdout);
      if (!found.value("verified", true) || found.contains("problem")) {
        throw Error(ExitCode::file,
                    fmt::format("{}: {}", options->path, found.value("problem", "checksums do not agree")),
                    found.value("problem", "") == data::kNothingToCompare ? "leave out --verify"
                                                                          : "use another copy, or write it again");
      }
    });
    return 0;
  };
}

}  // namespace seer::app
