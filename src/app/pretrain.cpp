// SPDX-License-Identifier: Apache-2.0
// seer pretrain: a whole run from one configuration file.
#include <CLI/CLI.hpp>
#include <memory>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/run/trainer.hpp"
#include "seer/train/compute.hpp"

namespace seer::app {

Run add_pretrain(CLI::App& command) {
  struct Options {
    std::string config;
    std::vector<std::string> set;
    run::PretrainOptions run;
  };
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
  return [options](const comm::Communicator& world) {
    const auto config = load_config(world, options->config, options->set);
    train::warn_if_slower(config, world);
    return run::pretrain(config, world, options->run);
  };
}

}  // namespace seer::app
