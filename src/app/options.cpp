// SPDX-License-Identifier: Apache-2.0
#include "options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/session.hpp"
#include "seer/train/compute.hpp"

namespace seer::app {

namespace fs = std::filesystem;

CLI::Option* add_set(CLI::App& command, std::vector<std::string>& set, const char* help) {
  return command.add_option("--set", set, help)->take_all()->allow_extra_args(false)->default_str("");
}

config::Config load_config(const comm::Communicator& world, const std::string& path,
                           const std::vector<std::string>& overrides, AutoPrecision precision) {
  std::string resolved;
  comm::agree(world, "reading the configuration", [&] {
    if (!world.is_root()) return;
    std::stringstream content;
    if (!path.empty()) {
      std::ifstream file(path, std::ios::binary);
      if (!file || (file.peek(), file.bad()))  // opening a folder succeeds; reading from it does not
        throw Error(ExitCode::input, fmt::format("{}: cannot read the configuration file", path),
                    "check the path; inputs/ holds examples");
      file.clear();
      content << file.rdbuf();
    }
    resolved = config::to_toml(config::parse(content.str(), path, overrides));
  });
  world.broadcast(resolved);  // paths are the root's: the home folder may differ on other nodes
  auto config = config::parse_resolved(resolved, path);
  if (precision == AutoPrecision::settle) train::settle_precision(config, world);
  return config;
}

void add_existing(CLI::App& command, data::Existing& existing) {
  auto* const replace = command.add_flag_callback(
      "--replace", [&existing] { existing = data::Existing::replace; },
      "Delete the folder's shards of this name when the new ones are complete");
  command
      .add_flag_callback(
          "--append", [&existing] { existing = data::Existing::append; },
          "Keep the folder's shards of this name; the numbers of the new ones follow theirs")
      ->excludes(replace);
}

void add_eval_choices(CLI::App& command, EvalChoices& choices) {
  command.add_option(
      "--features,--layer", choices.features,
      "Outputs of the network, separated by commas: trunk (average-pooled), head (normalised embedding),\n"
      "stem, res2 ... res5 (averaged), res5:2x1 (over a grid), res5:gem3, res5:rmac3, res4+res5");
  command.add_option("--batch", choices.batch, "Images at a time on each rank")->check(CLI::Range(1, 65536));
  auto* const resize = command.add_option("--resize", choices.resize, "Pixels of the shorter side before the crop")
                           ->check(CLI::Range(1, 8192));
  auto* const crop =
      command.add_option("--crop", choices.crop, "Pixels of the centre crop")->check(CLI::Range(1, 8192));
  auto* const whole =
      command
          .add_option("--whole", choices.whole,
                      "Instead of --resize and --crop: whole images, the longer side at most N pixels, one at a time")
          ->check(CLI::Range(1, 8192))
          ->type_name("N")
          ->default_str("")
          ->excludes(resize)
          ->excludes(crop);
  command
      .add_flag("--squash", choices.squash,
                "Instead of --resize: the whole image is resized to the size of the crop, whatever its shape")
      ->excludes(resize)
      ->excludes(whole);
  command.add_option("--device", choices.device, "Where to compute; auto: on a device where there is one")
      ->check(CLI::IsMember({"auto", "host", "device"}));
  command
      .add_option("--recalibrate-batchnorm", choices.recalibrate,
                  "Estimate BatchNorm's running statistics anew at this size of crop from N images of the data "
                  "(eval: of the training set) before features are computed")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N")
      ->default_str("");
}

data::EvalOptions reading_of(const EvalChoices& choices) {
  if (choices.crop > choices.resize && !choices.squash && choices.whole == 0)
    log::warn(
        fmt::format("--crop {} is larger than --resize {}: images get a black border", choices.crop, choices.resize));
  data::EvalOptions out;
  out.resize = choices.resize;
  out.crop = choices.crop;
  out.squash = choices.squash;
  out.whole = choices.whole;
  out.batch = choices.batch;
  out.threads = device::threads();
  return out;
}

namespace {

std::string ending_of(const std::string& path) {
  auto ending = fs::path(path).extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending;
}

std::string with_ending(const std::string& path, const std::string& ending) {
  return fmt::format("name it {}", fs::path(path).replace_extension(ending).string());
}

}  // namespace

void require_ending(const std::string& path, const std::string& wanted) {
  const auto ending = ending_of(path);
  if (ending == wanted) return;
  throw Error(ExitCode::input,
              fmt::format("{}: {}, wanted {}", path,
                          ending.empty() ? "the name has no ending" : "this command does not write " + ending, wanted),
              with_ending(path, wanted))
      .as_agreed();
}

void refuse_misleading(const std::string& path, const std::string& written) {
  if (path.empty()) throw Error(ExitCode::input, "the name of the output is empty", "give it a name").as_agreed();
  constexpr const char* kOthers[] = {".csv",         ".tsv",  ".txt",     ".json", ".jsonl", ".npy",
                                     ".npz",         ".mat",  ".parquet", ".pt",   ".pth",   ".pkl",
                                     ".safetensors", ".onnx", ".bin",     ".zip",  ".tar",   ".gz"};
  const auto ending = ending_of(path);
  if (std::ranges::find(kOthers, ending) == std::end(kOthers)) return;
  throw Error(ExitCode::input, fmt::format("{}: this command writes {}, not {}", path, written, ending),
              written == "HDF5" ? with_ending(path, ".h5") : "choose a name without this ending")
      .as_agreed();
}

}  // namespace seer::app
