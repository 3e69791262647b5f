// SPDX-License-Identifier: Apache-2.0
// seer copies: changed copies of images, as shards.
#include "seer/data/copies.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/log.hpp"

namespace seer::app {

Run add_copies(CLI::App& command) {
  auto options = std::make_shared<data::CopyOptions>();
  auto shards = std::make_shared<std::string>();
  command.add_option("shards", *shards, "Shards of the originals: folder, glob or comma-separated list")->required();
  command.add_option("-o,--output", options->folder, "Folder for originals-*.h5 and copies-*.h5")->required();
  command.add_option("--images", options->images, "Take the first N images (default: all)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->type_name("N")
      ->default_str("");
  command.add_option("--seed", options->seed, "Other positions, angles, colours and strokes")
      ->check(CLI::NonNegativeNumber);
  command.add_flag_callback(
      "--replace", [&existing = options->existing] { existing = data::Existing::replace; },
      "Delete the folder's sets of these names when the new ones are complete");
  return [options, shards](const comm::Communicator& world) {
    refuse_misleading(options->folder, "a folder of shards");
    const auto r = data::write_copies(data::DataSet::open(*shards, world), *options, world);
    log::info(
        fmt::format("copies     {} copies of {} kinds of {} originals, {:.1f} MiB, in {}; {:.1f} s ({:.0f} images/s)",
                    r.copies.images, data::copy_kinds().size(), r.originals.images,
                    static_cast<double>(r.copies.bytes) / (1024.0 * 1024.0), options->folder, r.copies.seconds,
                    static_cast<double>(r.copies.images) / r.copies.seconds));
    return 0;
  };
}

}  // namespace seer::app
