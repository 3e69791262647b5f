// SPDX-License-Identifier: Apache-2.0
// seer pretrain and seer finetune: a whole run from one configuration file.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/error.hpp"
#include "seer/run/resume.hpp"
#include "seer/run/trainer.hpp"
#include "seer/train/compute.hpp"

namespace seer::app {

namespace {

struct Options {
  std::string config;
  std::vector<std::string> set;
  run::PretrainOptions run;
};

std::shared_ptr<Options> add_options(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("config", options->config, "Configuration file (TOML); every key: seer --help-config")->required();
  add_set(command, options->set);
  command
      .add_option("--resume", options->run.resume, "auto, never, or a checkpoint folder (of a run folder its newest)")
      ->take_last();
  command
      .add_option("--allow-change", options->run.allow_changes,
                  "Go on though these keys or sections (KEY[,KEY...]) are not the checkpoint's")
      ->delimiter(',')
      ->take_all()
      ->allow_extra_args(false)
      ->default_str("");
  command.add_flag("--allow-batch-change", options->run.allow_batch_change,
                   "Go on with another data.global_batch than the checkpoint's; learning rates stay as configured");
  command.add_flag("--verbose", options->run.verbose, "Print every key of the configuration");
  return options;
}

}  // namespace

Run add_pretrain(CLI::App& command) {
  auto options = add_options(command);
  return [options](const comm::Communicator& world) {
    auto config = load_config(world, options->config, options->set, AutoPrecision::keep);
    run::settle_precision(config, world, options->run);
    train::warn_if_slower(config, world);
    return run::pretrain(config, world, options->run);
  };
}

Run add_finetune(CLI::App& command) {
  auto options = add_options(command);
  return [options](const comm::Communicator& world) {
    options->set.insert(options->set.begin(), "method.kind=supervised");
    auto config = load_config(world, options->config, options->set, AutoPrecision::keep);
    if (config.method.kind != "supervised")
      throw Error(ExitCode::input,
                  fmt::format("method.kind = \"{}\"; this command needs \"supervised\"", config.method.kind),
                  "leave method.kind out, or use seer pretrain")
          .as_agreed();
    // Several crops of an image teach a method without labels. A classifier's usual crop is one.
    if (config.crops == config::Config().crops) config.crops = {{1, 224, {0.08, 1.0}}};
    run::settle_precision(config, world, options->run);
    train::warn_if_slower(config, world);
    return run::pretrain(config, world, options->run);
  };
}

}  // namespace seer::app
