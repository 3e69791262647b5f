// SPDX-License-Identifier: Apache-2.0
// seer pack: packs images into shards.
#include "seer/data/pack.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "options.hpp"
#include "seer/app/command.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"

namespace seer::app {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;

CLI::Validator folder_name() {
  return {[](std::string& text) -> std::string {
            while (text.size() > 1 && text.ends_with('/')) text.pop_back();  // a shell's completion adds the slash
            const bool one = !text.empty() && text != "." && text != ".." && text.find('/') == std::string::npos;
            return one && is_utf8(text) ? "" : fmt::format("\"{}\": wanted the name of one folder, in UTF-8", text);
          },
          "NAME"};
}

void print(const data::PackOptions& options, const data::PackResult& r) {
  std::uint64_t rejected = 0;
  for (const auto& [kind, n] : r.rejected) rejected += n;
  log::info(fmt::format("accepted   {} images, {:.1f} MiB, in {} shards in {}", r.accepted,
                        static_cast<double>(r.bytes) / kMiB, r.shards, options.folder));
  if (!r.classes.empty()) {
    log::info(fmt::format("classes    {}{}", r.classes.size(),
                          !options.label_file.empty() ? fmt::format(", from {}", options.label_file)
                          : r.of_archive == 0         ? ""
                          : r.of_archive == r.accepted
                              ? ", named by archives (no image lies in a folder of its archive)"
                              : fmt::format(", named by folders, and for {} images by archives", r.of_archive)));
  }
  if (r.targets > 0)
    log::info(fmt::format("targets    {} ({:.2f} an image)", r.targets,
                          static_cast<double>(r.targets) / static_cast<double>(r.accepted)));
  if (r.unlabelled > 0 && !options.label_file.empty())
    log::info(fmt::format("           {} images have no class", r.unlabelled));
  if (r.archives > 0) log::info(fmt::format("archives   {} inside the sources", r.archives));
  log::info(fmt::format("rejected   {} files{}", rejected,
                        rejected > 0 ? fmt::format(" (listed in {}/rejects.jsonl)", options.folder) : ""));
  for (const auto& [kind, n] : r.rejected) log::info(fmt::format("           {:6} {}", n, kind));
  if (!r.left_out.empty()) log::info("left out");
  for (const auto& [kind, n] : r.left_out) log::info(fmt::format("           {:6} {}", n, kind));
  const auto looked_at = static_cast<double>(r.files);
  log::info(fmt::format("time       {:.1f} s ({:.0f} files/s; verifying alone {:.0f} files/s), {} ranks", r.seconds,
                        looked_at / r.seconds, looked_at / r.verify_seconds, log::ranks()));
  log::info(fmt::format("memory     {:.0f} MiB at most in a rank", static_cast<double>(r.peak_bytes) / kMiB));
}

}  // namespace

Run add_pack(CLI::App& command) {
  auto options = std::make_shared<data::PackOptions>();
  auto labels = std::make_shared<std::string>("folder");
  auto missing = std::make_shared<std::string>("refuse"), unlabelled = std::make_shared<std::string>("refuse");
  command
      .add_option("SRC", options->sources,
                  "Folders (with all below; links are followed, each file is taken once), .tar archives (.gz .zst .xz\n"
                  ".bz2; also archives inside folders, and inside archives), text files with one path a line, images")
      ->required()
      ->default_str("");
  command.add_option("-o,--output", options->folder, "Folder for the shards and rejects.jsonl")->required();
  command
      .add_option("--labels", *labels,
                  "folder: an image's class is its folder's name, or the archive's where it lies in no folder of an\n"
                  "archive; none: no labels; else a label file (docs/formats.md): a table of files and labels, a\n"
                  "folder of VOC's XML, or COCO's JSON. csv:, voc:, coco: or inat: before it names its form")
      ->type_name("folder, none or FILE");
  command
      .add_option("--classes", options->classes_file,
                  "File that fixes the classes and their order: one name a line, or a name and its number")
      ->type_name("FILE");
  command.add_option("--list", options->list_file, "Take only the files that this file names, one path a line")
      ->type_name("FILE");
  command
      .add_option("--missing", *missing,
                  "Paths of the label file or the list that are not in the sources: refuse or skip them")
      ->check(CLI::IsMember({"refuse", "skip"}));
  command
      .add_option("--unlabelled", *unlabelled,
                  "Images that the label file does not name: refuse, keep (without a label) or skip them")
      ->check(CLI::IsMember({"refuse", "keep", "skip"}));
  auto* fraction =
      command
          .add_option("--fraction", options->subset.fraction, "Pack only this part of each class's images, rounded up")
          ->check(CLI::Range(1e-9, 1.0));
  command.add_option("--per-class", options->subset.per_class, "Pack only this many images of each class")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))
      ->default_str("")
      ->excludes(fraction);
  command.add_option("--seed", options->subset.seed, "Of the choice of these images");
  command
      .add_option(
          "--split", options->split,
          "Take only what lies in this folder (train, test, ...) directly inside a source; names the shards. In\n"
          "an archive, one folder that holds everything is passed over; a list begins at the longest folder\n"
          "that all its paths have in common")
      ->transform(folder_name());
  command.add_flag("--hidden", options->hidden,
                   "Take hidden files and folders, too: names with a leading dot, __MACOSX, @eaDir, $RECYCLE.BIN, ...");
  command.add_option("--shard-bytes", options->shard_bytes, "Encoded bytes of a shard at most")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 50));
  command.add_option("--min-side", options->min_side, "Refuse images whose shorter side has fewer pixels")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  command.add_option("--max-pixels", options->max_pixels, "Refuse images that declare more pixels")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40));
  command.add_flag("--reject-duplicates", options->reject_duplicates,
                   "Refuse files whose bytes came before (with --append: or are in the folder)");
  add_existing(command, options->existing);
  return [options, labels, missing, unlabelled](const comm::Communicator& world) {
    refuse_misleading(options->folder, "a folder of shards");
    options->labels = *labels == "folder";
    if (!options->labels && *labels != "none") options->label_file = *labels;
    options->skip_missing = *missing == "skip";
    if (*unlabelled == "keep") options->unlabelled = data::Unlabelled::keep;
    if (*unlabelled == "skip") options->unlabelled = data::Unlabelled::skip;
    print(*options, data::pack(*options, world));
    return 0;
  };
}

}  // namespace seer::app
