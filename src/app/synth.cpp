// SPDX-License-Identifier: Apache-2.0
// seer synth: writes procedural labelled images as shards.
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/log.hpp"

namespace seer::app {

Run add_synth(CLI::App& command) {
  auto options = std::make_shared<data::SynthOptions>();
  command.add_option("-o,--output", options->folder, "Folder for the shards")->required();
  command.add_option("--classes", options->classes, "Combinations of texture, shape and layout")
      ->check(CLI::Range(std::int64_t{1}, data::kSynthClasses));
  command.add_option("--images", options->images, "Image i is of class i modulo the number of classes")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  command.add_option("--size", options->size, "Pixels a side")->check(CLI::Range(std::int64_t{8}, std::int64_t{4096}));
  command.add_option("--seed", options->seed, "Images of another seed are others of the same classes")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--split", options->name, "Names the shards (train, test, ...)");
  add_existing(command, options->existing);
  return [options](const comm::Communicator& world) {
    refuse_misleading(options->folder, "a folder of shards");
    const auto r = data::synth(*options, world);
    log::info(
        fmt::format("synth      {} images of {} classes, {:.1f} MiB, in {} shards in {}; {:.1f} s ({:.0f} images/s)",
                    r.images, options->classes, static_cast<double>(r.bytes) / (1024.0 * 1024.0), r.shards,
                    options->folder, r.seconds, static_cast<double>(r.images) / r.seconds));
    return 0;
  };
}

}  // namespace seer::app
