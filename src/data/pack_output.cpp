// SPDX-License-Identifier: Apache-2.0
#include "pack_parts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ranges>

#include "seer/base/log.hpp"
#include "seer/base/names.hpp"

namespace seer::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Numbers of the files <name>-<number>.h5<suffix> in the folder, ascending.
std::vector<std::size_t> numbers_in(const std::string& folder, const std::string& name, const std::string& suffix) {
  std::vector<std::size_t> numbers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    auto file = entry.path().filename().string();
    if (!file.ends_with(suffix)) continue;
    file.erase(file.size() - suffix.size());
    if (const auto parsed = parse_shard_name(file); parsed && parsed->first == name) numbers.push_back(parsed->second);
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// The existing shards that the new ones are added to. Checks each of them.
std::vector<Manifest::File> files_to_keep(const std::string& folder, const std::string& name,
                                          const comm::Communicator& alone) {
  const auto manifest = read_manifest(folder, name);
  if (manifest && !manifest->complete) {  // the manifest of an unfinished pack lists the shards that it was to keep
    if (manifest->files.empty() && !numbers_in(folder, name, "").empty())
      throw Error(
          ExitCode::input,
          fmt::format("{}: an earlier call did not finish; the folder may hold old and new {}-*.h5", folder, name),
          "pack everything again with --replace, or move these files to another folder");
    for (const auto& file : manifest->files) {
      const auto path = fs::path(folder) / file.name;
      std::error_code error;
      if (fs::file_size(path, error) == file.bytes && !error) continue;
      fail(fmt::format("{}: missing, or not the file that an earlier call found", path.string()),
           "restore it, or pack everything again with --replace");
    }
    return manifest->files;
  }
  std::vector<std::string> paths;
  std::vector<ChosenShard> chosen;
  for (const auto number : numbers_in(folder, name, "")) {
    paths.push_back(shard_path(folder, name, number));
    chosen.push_back({paths.back(), true});
  }
  std::vector<ShardInfo> shards;
  read_shard_infos(paths, alone, [&](ShardInfo info) { shards.push_back(std::move(info)); });
  check_sets(shards, chosen);
  std::vector<Manifest::File> files;
  for (const auto& s : shards) files.push_back({fs::path(s.path).filename(), s.set.id, s.images, s.file_bytes});
  return files;
}

// Returns a lock on the shards of this name; its release removes its file. If the file system has no locks, does
// nothing.
std::shared_ptr<void> lock(const std::string& folder, const std::string& name) {
  const auto path = fmt::format("{}/.{}.lock", folder, name);
  for (;;) {
    const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return nullptr;
    struct flock whole {};
    whole.l_type = F_WRLCK;
    if (::fcntl(file, F_SETLK, &whole) != 0 && (errno == EAGAIN || errno == EACCES)) {
      ::close(file);
      throw Error(ExitCode::input, fmt::format("{}: another process writes {}-*.h5 there", folder, name),
                  "wait until it has ended, or choose another folder or --split");
    }
    struct stat held {};
    struct stat there {};
    if (::fstat(file, &held) == 0 && ::stat(path.c_str(), &there) == 0 && held.st_ino == there.st_ino)
      return {nullptr, [path, file](void*) {
                ::unlink(path.c_str());
                ::close(file);
              }};
    ::close(file);  // its owner has removed the file in the meantime
  }
}

std::string listed(const auto& names) {
  constexpr std::size_t kShown = 10;
  if (names.empty()) return "no folder";
  const auto shown = names | std::views::take(kShown) | std::views::transform(utf8_name);
  const auto text = fmt::format("the folder{} {}", names.size() == 1 ? "" : "s", fmt::join(shown, ", "));
  return names.size() > kShown ? fmt::format("{} and {} more", text, names.size() - kShown) : text;
}

// A warning if two or more of the names look like splits, which are packed together; else "".
std::string mixture(const auto& names, const std::string& where, const char* remedy) {
  std::vector<std::string> splits;
  for (const auto& name : names) {
    const auto stem = archive_stem(name);
    if (is_split_name(stem.empty() ? std::string_view(name) : stem)) splits.push_back(name);
  }
  if (splits.size() < 2) return "";
  return fmt::format("{} of {} are packed together; {}", listed(splits), utf8_name(where), remedy);
}

// A warning if the split matches nothing, leaves nothing out, or contains splits itself; else "".
std::string warning_of_split(const std::string& path, const std::string& split, const Tally& tally) {
  if (const auto own = tally.folders.find(split); own != tally.folders.end()) {
    const auto warning = mixture(own->second, path + "/" + split, "give that folder as the source");
    if (!warning.empty()) return warning;
  }
  if (tally.taken == 0)
    return fmt::format("no folder {} directly inside {}, which holds {}", split, path,
                       listed(std::views::keys(tally.folders)));
  if (tally.outside_split > 0) return "";
  return fmt::format("--split {} takes all {} files of {}: there is no other split", split, tally.taken, path);
}

std::string warning_of_mixture(const Source& source, const Tally& tally) {
  constexpr const char* kRemedy = "use --split to pack each separately";
  if (tally.folders.size() == 1) {
    const auto& [top, inside] = *tally.folders.begin();
    if (source.kind == Source::Kind::archive && !tally.files_inside) return mixture(inside, source.given, kRemedy);
    const auto warning = mixture(inside, source.given + "/" + top,
                                 "give that folder as the source, and use --split to pack each separately");
    if (!warning.empty()) return warning;
  }
  return mixture(std::views::keys(tally.folders), source.given, kRemedy);
}

// Folders one level down that hold the split: most likely the user meant these as sources.
std::vector<std::string> sources_meant(const SourceList& sources, const std::string& split,
                                       const std::vector<Tally>& tallies) {
  std::vector<std::string> meant;
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    if (sources[i].kind != Source::Kind::folder) continue;
    for (const auto& [top, inside] : tallies[i].folders)
      if (inside.contains(split)) meant.push_back(sources[i].given + "/" + top);
  }
  return meant;
}

}  // namespace

std::string Progress::left(double done) const {
  if (done <= 0.01) return "";
  const auto seconds = static_cast<std::int64_t>(clock_.seconds() / done * (1 - done) + 0.5);
  return fmt::format(", {}:{:02} left", seconds / 60, seconds % 60);
}

SetOutput::SetOutput(const std::string& folder, const std::string& name, Existing existing,
                     const comm::Communicator& alone)
    : folder_(folder), name_(name) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(fmt::format("{}: cannot be made: {}", folder, error.message()));
  lock_ = lock(folder, name);
  const std::string probe = fmt::format("{}/.seer-write-test.{}", folder, ::getpid());
  if (!std::ofstream(probe)) fail(fmt::format("{}: not writable: {}", folder, std::strerror(errno)));
  fs::remove(probe, error);
  if (const auto there = numbers_in(folder, name, "").size(); existing == Existing::refuse && there > 0)
    throw Error(
        ExitCode::input, fmt::format("{} holds {} shards {}-*.h5 already", folder, there, name),
        "use --replace to delete them when the new shards are complete, or choose another folder; seer pack and seer "
        "synth may also add shards (--append) or write another set (--split)");
  if (existing == Existing::append) kept_ = files_to_keep(folder, name, alone);
  for (const auto& file : kept_)
    first_number_ = std::max(first_number_, parse_shard_name(file.name).value().second + 1);
  const auto unfinished = numbers_in(folder, name, kTemporarySuffix);
  for (const auto number : unfinished) fs::remove(shard_path(folder, name, number) + kTemporarySuffix, error);
  if (!unfinished.empty())
    log::info(fmt::format("removed {} unfinished shards of an interrupted call", unfinished.size()));
}

void SetOutput::begin_naming() const {
  write_manifest(folder_, name_, {false, kept_});
  std::size_t removed = 0;
  for (const auto number : numbers_in(folder_, name_, "")) {
    const auto path = shard_path(folder_, name_, number);
    const auto file = fs::path(path).filename().string();
    if (std::ranges::find(kept_, file, &Manifest::File::name) != kept_.end()) continue;
    if (std::remove(path.c_str()) != 0) fail(fmt::format("{}: {}", path, std::strerror(errno)));
    ++removed;
  }
  if (removed > 0) log::info(fmt::format("removed {} shards of an earlier call", removed));
}

void SetOutput::end_naming(const std::string& set, const std::vector<std::uint64_t>& images) const {
  sync_to_disk(folder_);
  Manifest manifest{true, kept_};
  for (std::size_t i = 0; i < images.size(); ++i) {
    const fs::path path = shard_path(folder_, name_, first_number_ + i);
    manifest.files.push_back({path.filename(), set, images[i], fs::file_size(path)});
  }
  write_manifest(folder_, name_, manifest);
}

void write_rejects(const std::string& folder, const std::string& name, const std::vector<Reject>& rejects,
                   Existing existing) {
  const std::string path = folder + "/rejects.jsonl";
  std::string text;
  std::ifstream before(path);
  for (std::string line; std::getline(before, line);) {
    const auto old = json::parse(line, nullptr, false);
    if (!old.is_object() || !old.contains("split")) continue;
    if (old["split"] != name || existing == Existing::append) text += line + '\n';
  }
  for (const auto& r : rejects) {
    const json object = {{"split", name}, {"path", r.path}, {"reason", r.reason}, {"bytes", r.bytes}};
    // Paths are bytes. Those that are not UTF-8 get the replacement character.
    text += object.dump(-1, ' ', false, json::error_handler_t::replace) + '\n';
  }
  replace_file(path, text);
}

void want_room(const std::string& folder, std::uint64_t bytes) {
  std::error_code error;  // then the writes themselves will fail
  const auto free_bytes = fs::space(folder, error).available;
  if (!error && free_bytes < bytes)
    fail(fmt::format("{}: no space left: the images need {} bytes, {} are free", folder, bytes, free_bytes),
         "make room, or write to another file system");
}

LeftOut judge(const SourceList& sources, const PackOptions& options, const std::vector<Tally>& tallies) {
  LeftOut out;
  std::set<std::string> folders;
  for (std::size_t i = 0; i < tallies.size(); ++i) {
    const auto& tally = tallies[i];
    const auto path = utf8_name(sources[i].given);
    const auto say = [&](const std::string& kind, std::uint64_t n, const char* detail) {
      out.counts[kind] += n;
      out.lines.push_back({path, fmt::format("{}: {} {}", kind, n, detail), 0});
    };
    for (const auto& [kind, n] : tally.hidden)
      say("hidden: " + utf8_name(kind), n, "files or folders of this name; use --hidden to take them");
    if (tally.outside_split > 0) say("not in the split", tally.outside_split, "files");
    auto warning =
        options.split.empty() ? warning_of_mixture(sources[i], tally) : warning_of_split(path, options.split, tally);
    if (!warning.empty()) out.warnings.push_back(std::move(warning));
    if (tally.archives > 0 && tally.loose_images > 0)
      out.warnings.push_back(fmt::format(
          "{} holds {} archives and, beside them, {} images: all are packed. Images that are in both are packed twice; "
          "use --reject-duplicates to pack them once",
          path, tally.archives, tally.loose_images));
    for (const auto& [name, inside] : tally.folders) folders.insert(name);
    out.archives += tally.archives;
    out.samples |= tally.samples;
  }
  if (out.samples)
    out.warnings.emplace_back(
        "archives hold text files beside their images (17.cls, 17.jpg), as in webdataset: the texts are not read, and "
        "the names of the archives do not become classes");
  out.nothing = "the sources hold no files";
  out.remedy = "correct the sources";
  if (!options.split.empty()) {
    out.nothing =
        fmt::format("no folder {} directly inside the sources, which hold {}", options.split, listed(folders));
    const auto meant = sources_meant(sources, options.split, tallies);
    out.remedy = meant.empty()
                     ? "name one of these, give the folder above the splits as source, or leave out --split"
                     : fmt::format("{} {} a folder of this name: give {} as source", listed(meant),
                                   meant.size() == 1 ? "holds" : "hold", meant.size() == 1 ? "it" : "one of them");
  } else if (!out.counts.empty()) {
    out.nothing = "the sources hold only hidden files";
    out.remedy = "use --hidden to take them";
  }
  return out;
}

}  // namespace seer::data
