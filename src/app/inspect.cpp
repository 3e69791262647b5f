// SPDX-License-Identifier: Apache-2.0
// seer inspect: shows what a shard, a folder of shards, a checkpoint, a weights file or a safetensors file holds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/data/shard.hpp"
#include "seer/weights/exchange.hpp"

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
  if (const std::string problem = verify ? checkpoint::verify(folder) : ""; !problem.empty()) {
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

ordered_json inspect_safetensors(const std::string& path, bool verify) {
  const weights::SafetensorsFile file(path);
  ordered_json tensors = ordered_json::array();
  std::int64_t values = 0;
  for (const auto& [name, entry] : file.entries()) {
    values += std::accumulate(entry.shape.begin(), entry.shape.end(), std::int64_t{1}, std::multiplies());
    tensors.push_back(
        {{"name", name}, {"type", entry.type}, {"shape", entry.shape}, {"bytes", entry.end - entry.begin}});
  }
  ordered_json out = {
      {"file", path}, {"kind", "safetensors"}, {"metadata", file.metadata()}, {"values", values}, {"tensors", tensors}};
  if (verify) out.update({{"verified", false}, {"problem", data::kNothingToCompare}});
  return out;
}

ordered_json inspect(const Options& o, const comm::Communicator& alone) {
  std::error_code error;
  if (!fs::exists(o.path, error)) throw Error(ExitCode::file, fmt::format("{}: no such file or folder", o.path));
  if (!fs::is_directory(o.path, error)) {
    if (o.path.ends_with(".safetensors")) return inspect_safetensors(o.path, o.verify);
    return ordered_json::parse(data::inspect_hdf5(o.path, o.verify, alone));
  }
  if (fs::exists(o.path + "/manifest.json", error) || fs::exists(o.path + "/state.h5", error))
    return inspect_checkpoint(o.path, o.verify, alone);
  return ordered_json::parse(data::inspect_folder(o.path, o.verify, alone));
}

std::string plain(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

/// For people: one line per value, and one line per object of a list.
std::string text_of(const ordered_json& j, const std::string& pad = "") {
  std::string out;
  for (const auto& [key, value] : j.items()) {
    if (value.is_object() && !value.empty()) {
      out += fmt::format("{}{}:\n", pad, key) + text_of(value, pad + "  ");
    } else if (value.is_array() && !value.empty() && value[0].is_object()) {
      out += fmt::format("{}{}: {}\n", pad, key, value.size());
      for (const auto& item : value) {
        if (item.contains("file")) {
          out += text_of(item, pad + "  ");
          continue;
        }
        out += pad + "  " + item.value("name", "");
        for (const auto& [k, v] : item.items())
          if (k != "name" && !(v.is_object() && v.empty())) out += "  " + plain(v);
        out += "\n";
      }
    } else {
      out += fmt::format("{}{:<20} {}\n", pad, key, plain(value));
    }
  }
  return out;
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
      const auto text =
          options->json ? found.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n" : text_of(found);
      std::fputs(text.c_str(), stdout);
      std::fflush(stdout);
      if (!found.value("verified", true) || found.contains("problem"))
        throw Error(ExitCode::file,
                    fmt::format("{}: {}", options->path, found.value("problem", "checksums do not agree")),
                    found.value("problem", "") == data::kNothingToCompare ? "leave out --verify"
                                                                          : "use another copy, or write it again");
    });
    return 0;
  };
}

}  // namespace seer::app
