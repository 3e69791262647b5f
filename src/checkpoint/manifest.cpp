// SPDX-License-Identifier: Apache-2.0
#include "seer/checkpoint/manifest.hpp"

#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/folders.hpp"

namespace seer::checkpoint {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uintmax_t kMaxManifestBytes = std::uintmax_t{1} << 30;

// Many JSON readers turn numbers into doubles, so 64-bit checksums are written as 16 hexadecimal digits.
std::string hex(std::uint64_t value) {
  return fmt::format("{:016x}", value);
}

std::uint64_t from_hex(const json& j) {
  const auto& text = j.get_ref<const std::string&>();
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::invalid_argument("the checksum is not a number");
  return value;
}

// The product of a shape read from a file. Throws if it cannot be the size of a tensor.
std::int64_t checked_elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const auto extent : shape) {
    if (extent < 0 || (extent > 0 && n > std::numeric_limits<std::int64_t>::max() / 8 / extent)) {
      throw std::invalid_argument("a tensor's shape is impossible");
    }
    n *= extent;
  }
  return n;
}

void check_tensor(const TensorRecord& tensor, std::uint64_t file_bytes) {
  const auto elements = checked_elements(tensor.shape);
  std::int64_t at = 0;
  for (const auto& piece : tensor.pieces) {
    if (piece.begin != at || piece.end <= piece.begin || piece.end - piece.begin > kPieceElements) {
      throw std::invalid_argument("the slabs of /" + tensor.group + "/" + tensor.name + " do not follow one another");
    }
    at = piece.end;
  }
  const auto bytes = static_cast<std::uint64_t>(elements) * sizeof(float);
  if (at != elements || bytes > file_bytes || tensor.offset_bytes > file_bytes - bytes) {
    throw std::invalid_argument("the slabs of /" + tensor.group + "/" + tensor.name + " do not cover it");
  }
}

json to_tree(const Manifest& m) {
  json tensors = json::array();
  for (const auto& t : m.tensors) {
    json slabs = json::array();
    for (const auto& p : t.pieces) slabs.push_back({{"begin", p.begin}, {"end", p.end}, {"xxh3", hex(p.xxh3)}});
    tensors.push_back(
        {{"group", t.group}, {"name", t.name}, {"shape", t.shape}, {"offset", t.offset_bytes}, {"slabs", slabs}});
  }
  return {{"format", "seer-checkpoint"},
          {"version", 1},
          {"update", m.update},
          {"ranks", m.ranks},
          {"build", m.build},
          {"files", json::array({{{"name", "state.h5"}, {"bytes", m.file_bytes}}})},
          {"state_xxh3", hex(m.state_xxh3)},
          {"outside_xxh3", hex(m.outside_xxh3)},
          {"tensors", tensors}};
}

Manifest from_tree(json tree) {
  Manifest m;
  // The manifest's own checksum covers its text without this key, without spaces and with sorted keys.
  const auto own = from_hex(tree.at("xxh3"));
  tree.erase("xxh3");
  if (checksum(tree.dump()) != own) throw std::invalid_argument("its checksum is wrong");
  if (tree.at("format") != "seer-checkpoint") throw std::invalid_argument("it is not of a seer checkpoint");
  if (tree.at("version") != 1) throw std::invalid_argument("version " + tree["version"].dump() + ", wanted 1");
  m.update = tree.at("update");
  m.ranks = tree.at("ranks");
  m.build = tree.at("build");
  m.file_bytes = tree.at("files").at(0).at("bytes");
  m.state_xxh3 = from_hex(tree.at("state_xxh3"));
  m.outside_xxh3 = from_hex(tree.at("outside_xxh3"));
  for (const auto& t : tree.at("tensors")) {
    TensorRecord record{t.at("group"), t.at("name"), t.at("shape"), t.at("offset"), {}};
    for (const auto& p : t.at("slabs")) record.pieces.push_back({p.at("begin"), p.at("end"), from_hex(p.at("xxh3"))});
    check_tensor(record, m.file_bytes);
    m.tensors.push_back(std::move(record));
  }
  return m;
}

}  // namespace

std::int64_t TensorRecord::elements() const {
  std::int64_t n = 1;
  for (const auto extent : shape) n *= extent;
  return n;
}

const TensorRecord* Manifest::find(const std::string& group, const std::string& name) const {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), std::tie(group, name),
                       [](const TensorRecord& t, const auto& key) { return std::tie(t.group, t.name) < key; });
  return at != tensors.end() && at->group == group && at->name == name ? &*at : nullptr;
}

std::string to_json(const Manifest& manifest) {
  json tree = to_tree(manifest);
  tree["xxh3"] = hex(checksum(tree.dump()));
  return tree.dump(1) + "\n";
}

Manifest parse_manifest(const std::string& text, const std::string& path) {
  try {
    return from_tree(json::parse(text));
  } catch (const std::exception& e) {
    throw Error(ExitCode::file, fmt::format("{} cannot be used: {}", path, e.what()));
  }
}

std::string read_manifest_text(const std::string& folder) {
  const std::string path = folder + "/manifest.json";
  std::error_code ec;
  const auto bytes = fs::file_size(path, ec);
  if (ec) throw Error(ExitCode::file, fmt::format("{}: {}: not a complete checkpoint", path, ec.message()));
  if (bytes > kMaxManifestBytes) throw Error(ExitCode::file, fmt::format("{} has {} bytes, no manifest", path, bytes));
  std::string text(bytes, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(bytes))) {
    throw Error(ExitCode::file, fmt::format("{} cannot be read", path));
  }
  return text;
}

Manifest read_manifest(const std::string& folder) {
  auto manifest = parse_manifest(read_manifest_text(folder), folder + "/manifest.json");
  const std::string path = folder + "/state.h5";
  std::error_code ec;
  const auto bytes = fs::file_size(path, ec);
  if (ec) throw Error(ExitCode::file, fmt::format("{}: {}", path, ec.message()));
  if (bytes != manifest.file_bytes) {
    throw Error(ExitCode::file, fmt::format("{} has {} bytes, its manifest says {}", path, bytes, manifest.file_bytes));
  }
  if (const auto named = folder_update(fs::path(folder).filename()); named && *named != manifest.update) {
    throw Error(ExitCode::file, fmt::format("{} says that it is of update {}", folder, manifest.update));
  }
  return manifest;
}

}  // namespace seer::checkpoint
