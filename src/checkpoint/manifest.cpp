// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/manifest.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>

#include "sealed.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"

namespace seer::checkpoint {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "update-", kTemporary = ".tmp-", kReplaced = ".old-", kDeleted = ".del-";

void check_tensor(const TensorRecord& tensor, std::uint64_t file_bytes) {
  std::int64_t elements = 1, at = 0;
  for (const auto extent : tensor.shape) {
    if (extent < 0 || (extent > 0 && elements > std::numeric_limits<std::int64_t>::max() / 8 / extent))
      throw std::invalid_argument("a tensor's shape is impossible");
    elements *= extent;
  }
  for (const auto& piece : tensor.pieces) {
    if (piece.begin != at || piece.end <= piece.begin || piece.end - piece.begin > kPieceElements)
      throw std::invalid_argument("the slabs of /" + tensor.group + "/" + tensor.name + " do not follow one another");
    at = piece.end;
  }
  const auto bytes = static_cast<std::uint64_t>(elements) * sizeof(float);
  if (at != elements || bytes > file_bytes || tensor.offset_bytes > file_bytes - bytes)
    throw std::invalid_argument("the slabs of /" + tensor.group + "/" + tensor.name + " do not cover it");
}

/// Checksum of a range of a file. Reads it in small pieces, since checkpoints are verified while the training uses the
/// memory that it has planned.
std::uint64_t checksum_of(const RawFile& file, std::uint64_t begin, std::uint64_t bytes) {
  std::vector<char> buffer(std::min<std::uint64_t>(bytes, std::uint64_t{1} << 20));
  Checksum sum;
  for (std::uint64_t done = 0; done < bytes;) {
    const auto n = std::min<std::uint64_t>(bytes - done, buffer.size());
    file.read(begin + done, buffer.data(), n);
    sum.add(buffer.data(), n);
    done += n;
  }
  return sum.value();
}

/// True for example if `path` is a mount.
bool on_another_device(const fs::path& path, const fs::path& parent) {
  struct stat own = {}, outer = {};
  return stat(path.c_str(), &own) == 0 && stat(parent.c_str(), &outer) == 0 && own.st_dev != outer.st_dev;
}

}  // namespace

std::int64_t elements_of(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

const TensorRecord* Manifest::find(const std::string& group, const std::string& name) const {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), std::tie(group, name),
                       [](const TensorRecord& t, const auto& key) { return std::tie(t.group, t.name) < key; });
  return at != tensors.end() && at->group == group && at->name == name ? &*at : nullptr;
}

std::string to_json(const Manifest& m) {
  json tensors = json::array();
  for (const auto& t : m.tensors) {
    json slabs = json::array();
    for (const auto& p : t.pieces) slabs.push_back({{"begin", p.begin}, {"end", p.end}, {"xxh3", hex(p.xxh3)}});
    tensors.push_back(
        {{"group", t.group}, {"name", t.name}, {"shape", t.shape}, {"offset", t.offset_bytes}, {"slabs", slabs}});
  }
  return sealed({{"format", "seer-checkpoint"},
                 {"version", 1},
                 {"update", m.update},
                 {"ranks", m.ranks},
                 {"build", m.build},
                 {"files", json::array({{{"name", "state.h5"}, {"bytes", m.file_bytes}}})},
                 {"state_xxh3", hex(m.state_xxh3)},
                 {"outside_xxh3", hex(m.outside_xxh3)},
                 {"tensors", tensors}},
                1);
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  return parse_sealed(text, path, "seer-checkpoint", [](const json& tree) {
    Manifest m{tree.at("update"),
               tree.at("ranks"),
               tree.at("build"),
               tree.at("files").at(0).at("bytes"),
               from_hex(tree.at("state_xxh3")),
               from_hex(tree.at("outside_xxh3"))};
    for (const auto& t : tree.at("tensors")) {
      TensorRecord record{t.at("group"), t.at("name"), t.at("shape"), t.at("offset"), {}};
      for (const auto& p : t.at("slabs")) record.pieces.push_back({p.at("begin"), p.at("end"), from_hex(p.at("xxh3"))});
      check_tensor(record, m.file_bytes);
      m.tensors.push_back(std::move(record));
    }
    return m;
  });
}

Manifest read_manifest(const std::string& folder) {
  const std::string text_path = folder + "/manifest.json";
  auto manifest = parse_manifest(read_sealed(text_path), text_path);
  const std::string path = folder + "/state.h5";
  std::error_code ec;
  const auto bytes = fs::file_size(path, ec);
  if (ec) throw Error(ExitCode::file, fmt::format("{}: {}", path, ec.message()));
  if (bytes != manifest.file_bytes)
    throw Error(ExitCode::file, fmt::format("{} has {} bytes, its manifest says {}", path, bytes, manifest.file_bytes));
  if (const auto named = folder_update(fs::path(folder).filename()); named && *named != manifest.update)
    throw Error(ExitCode::file, fmt::format("{} says that it is of update {}", folder, manifest.update));
  return manifest;
}

std::uint64_t outside_checksum(const std::string& path, const Manifest& manifest) {
  constexpr std::uint64_t kMaxStretch = std::uint64_t{1} << 26;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> inside;
  for (const auto& t : manifest.tensors)
    inside.emplace_back(t.offset_bytes, t.offset_bytes + static_cast<std::uint64_t>(t.elements()) * sizeof(float));
  inside.emplace_back(manifest.file_bytes, manifest.file_bytes);
  std::sort(inside.begin(), inside.end());
  const RawFile file(path);
  std::vector<std::uint64_t> sums;
  std::uint64_t at = 0;
  for (const auto& [begin, end] : inside) {
    if (begin < at) throw Error(ExitCode::file, fmt::format("{}: tensors overlap at byte {}", path, begin));
    while (at < begin) {
      const auto bytes = std::min(begin - at, kMaxStretch);
      sums.push_back(checksum_of(file, at, bytes));
      at += bytes;
    }
    at = end;
  }
  return checksum(sums.data(), sums.size() * sizeof(std::uint64_t));
}

void verify_share(const std::string& folder, const Manifest& manifest, int part, int parts) {
  const std::string path = folder + "/state.h5";
  if (part == 0 && outside_checksum(path, manifest) != manifest.outside_xxh3)
    throw Error(
        ExitCode::file,
        fmt::format("{}: the bytes outside the tensors (state, names) have another checksum than when written", path));
  std::int64_t total = 0, before = 0;
  for (const auto& t : manifest.tensors) total += t.elements();
  const RawFile file(path);
  for (const auto& t : manifest.tensors) {
    for (const auto& p : t.pieces) {
      // All elements are divided evenly among the parts. The part that holds a piece's first element verifies it.
      const auto share = static_cast<double>(before) / static_cast<double>(total) * parts;
      const bool mine = std::min(static_cast<int>(share), parts - 1) == part;
      before += p.end - p.begin;
      if (!mine) continue;
      const auto begin = t.offset_bytes + static_cast<std::uint64_t>(p.begin) * sizeof(float);
      if (checksum_of(file, begin, static_cast<std::uint64_t>(p.end - p.begin) * sizeof(float)) == p.xxh3) continue;
      throw Error(ExitCode::file, fmt::format("{}: /{}/{}, elements {} to {}, have another checksum than when written",
                                              path, t.group, t.name, p.begin, p.end));
    }
  }
}

std::string folder_name(std::int64_t update) {
  return fmt::format("{}{:08d}", kPrefix, update);
}

std::optional<std::int64_t> folder_update(const std::string& name) {
  std::int64_t update = -1;
  if (name.starts_with(kPrefix)) std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), update);
  return update >= 0 && folder_name(update) == name ? std::optional(update) : std::nullopt;
}

Folders folders_in(const fs::path& folder, std::error_code& error) {
  Folders out;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error))
    if (const auto update = folder_update(at->path().filename())) out.emplace_back(*update, at->path());
  std::sort(out.begin(), out.end(), std::greater<>());
  return out;
}

Folders list_folders(const std::string& run_dir) {
  const auto parent = checkpoints_folder(run_dir);
  std::error_code ec;
  auto out = folders_in(parent, ec);
  if (ec && ec != std::errc::no_such_file_or_directory)
    throw Error(ExitCode::file, fmt::format("cannot look for checkpoints in {}: {}", parent.string(), ec.message()),
                "check that the file system of log.run_dir is there and that this user can read it");
  return out;
}

void commit_folder(const fs::path& temporary, const fs::path& final_path) {
  RawFile(temporary).sync();
  const auto parent = final_path.parent_path();
  const auto aside = parent / (std::string(kReplaced) + final_path.filename().string());
  std::error_code ec;
  // rename(2) does not replace a folder that is not empty. So the earlier folder is moved aside first; if the process
  // dies before the second rename, clear_leftovers() brings it back.
  const bool replaces = fs::exists(final_path, ec);
  if (replaces) {
    fs::remove_all(aside, ec);
    rename_durably(final_path, aside);
  }
  try {
    rename_durably(temporary, final_path);
  } catch (const Error&) {
    if (replaces && !fs::exists(final_path, ec)) fs::rename(aside, final_path, ec);
    throw;
  }
  if (replaces) fs::remove_all(aside, ec);
}

void clear_leftovers(const fs::path& checkpoints) {
  std::error_code ec;
  std::vector<fs::path> entries;
  for (fs::directory_iterator at(checkpoints, ec), end; !ec && at != end; at.increment(ec))
    entries.push_back(at->path());
  for (const auto& path : entries) {
    const std::string name = path.filename();
    if (name.starts_with(kTemporary) || name.starts_with(kDeleted)) {
      fs::remove_all(path, ec);
    } else if (name.starts_with(kReplaced)) {
      const auto home = checkpoints / name.substr(kReplaced.size());
      if (fs::exists(home, ec)) {
        fs::remove_all(path, ec);
      } else {
        log::warn(fmt::format("a run ended while it replaced {}: the earlier one is used", home.string()));
        fs::rename(path, home, ec);
      }
    }
  }
}

std::string set_aside_newer(const std::string& run_dir, std::int64_t update, const std::string& record) {
  const auto home = checkpoints_folder(run_dir);
  clear_leftovers(home);  // else a folder whose replacement was interrupted would come back later
  auto folders = list_folders(run_dir);
  std::erase_if(folders, [&](const auto& folder) { return folder.first <= update; });
  std::reverse(folders.begin(), folders.end());  // oldest first: if killed, the newest of the old run is still there
  std::error_code ec;
  const auto recorded = fs::path(run_dir) / record;
  const bool records = !record.empty() && fs::is_regular_file(recorded, ec);
  if (folders.empty() && !records) return "";

  // Folders are moved by rename, so if checkpoints/ leads to another file system they must stay on it.
  const bool linked = fs::is_symlink(home, ec) || on_another_device(home, run_dir);
  const auto is_there = [&](const fs::path& path) { return fs::exists(fs::symlink_status(path, ec)); };  // or a link
  int n = 1;
  std::string name;
  do name = fmt::format("checkpoints.old-{}", n++);
  while (is_there(fs::path(run_dir) / name) || is_there(home / name));
  const auto shown = fs::path(run_dir) / name, aside = linked ? home / name : shown;
  if (!fs::create_directory(aside, ec)) fail_with_errno("mkdir", aside.string());
  if (linked) fs::create_directory_symlink(fs::path("checkpoints") / name, shown, ec);
  try {
    if (records && !fs::copy_file(recorded, aside / record, ec))
      throw Error(ExitCode::file,
                  fmt::format("cannot copy {} to {}: {}", recorded.string(), aside.string(), ec.message()));
    for (const auto& [number, folder] : folders) rename_durably(folder, aside / folder.filename());
  } catch (const Error&) {
    for (const auto& [number, folder] : folders) fs::rename(aside / folder.filename(), folder, ec);
    if (records) fs::remove(aside / record, ec);
    if (linked) fs::remove(shown, ec);
    fs::remove(aside, ec);
    throw;
  }
  if (records) fs::remove(recorded, ec);
  return aside.string();
}

void discard(const fs::path& folder) {
  const auto doomed = folder.parent_path() / (std::string(kDeleted) + folder.filename().string());
  std::error_code ec;
  fs::rename(folder, doomed, ec);
  if (!ec) fs::remove_all(doomed, ec);
  if (ec) log::warn(fmt::format("checkpoint {} cannot be deleted: {}", folder.string(), ec.message()));
}

void retain(const std::string& run_dir, std::int64_t keep_last, std::int64_t keep_every, std::int64_t best) {
  std::int64_t kept = 0;
  Folders folders;
  try {
    folders = list_folders(run_dir);
  } catch (const Error& e) {
    log::warn(fmt::format("no old checkpoint is deleted: {}; {}", e.what(), e.remedy()));
  }
  for (const auto& [update, folder] : folders) {
    // An incomplete checkpoint is kept as evidence and not counted.
    if (!problem_of([&folder = folder] { read_manifest(folder); }).empty()) continue;
    const bool milestone = update == best || (keep_every > 0 && update % keep_every == 0);
    if (kept++ >= std::max<std::int64_t>(keep_last, 1) && !milestone) discard(folder);
  }
}

}  // namespace seer::checkpoint
