// SPDX-License-Identifier: Apache-2.0
#include "local_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/folders.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::checkpoint {
namespace {

using nlohmann::json;

constexpr std::uintmax_t kMaxManifestBytes = std::uintmax_t{1} << 30;

std::string hex(std::uint64_t value) {
  return fmt::format("{:016x}", value);
}
std::uint64_t from_hex(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::invalid_argument("the checksum is not a number");
  return value;
}

std::uint64_t bytes_of(const LocalSlab& slab) {
  return static_cast<std::uint64_t>(slab.end - slab.begin) * sizeof(float);
}

// The disk may be faulty: no value of the manifest may point outside the file or its tensor.
void check_consistent(const LocalManifest& m) {
  const auto demand = [](bool good, const char* what) {
    if (!good) throw std::invalid_argument(what);
  };
  demand(m.update >= 0 && m.ranks > 0 && m.rank >= 0 && m.rank < m.ranks, "its update or rank is impossible");
  demand(m.state_bytes <= m.bytes && m.queue_bytes <= m.bytes - m.state_bytes, "its state is larger than its file");
  demand(m.pieces.size() == (m.bytes + kLocalPieceBytes - 1) / kLocalPieceBytes, "its checksums do not cover the file");
  for (const auto& s : m.slabs) {
    double elements = 1;
    for (const auto extent : s.shape) elements *= static_cast<double>(std::max<std::int64_t>(extent, 0));
    demand(s.begin >= 0 && s.begin < s.end && static_cast<double>(s.end) <= elements, "a slab lies outside its tensor");
    demand(bytes_of(s) <= m.bytes && s.offset_bytes <= m.bytes - bytes_of(s), "a slab lies outside the file");
  }
}

}  // namespace

std::string to_json(const LocalManifest& m) {
  json slabs = json::array(), pieces = json::array();
  for (const auto& s : m.slabs) {
    slabs.push_back({{"group", s.group},
                     {"name", s.name},
                     {"shape", s.shape},
                     {"begin", s.begin},
                     {"end", s.end},
                     {"offset", s.offset_bytes}});
  }
  for (const auto sum : m.pieces) pieces.push_back(hex(sum));
  json tree = {{"format", "seer-local"},
               {"version", 1},
               {"update", m.update},
               {"rank", m.rank},
               {"ranks", m.ranks},
               {"save", m.save},
               {"bytes", m.bytes},
               {"slabs", slabs},
               {"state_bytes", m.state_bytes},
               {"queue_bytes", m.queue_bytes},
               {"pieces", pieces}};
  tree["xxh3"] = hex(checksum(tree.dump()));
  return tree.dump() + "\n";
}

LocalManifest parse_local_manifest(const std::string& text, const std::string& path) {
  try {
    json tree = json::parse(text);
    const auto own = from_hex(tree.at("xxh3"));
    tree.erase("xxh3");
    if (checksum(tree.dump()) != own) throw std::invalid_argument("its checksum is wrong");
    if (tree.at("format") != "seer-local") throw std::invalid_argument("it is not of a local copy");
    if (tree.at("version") != 1) throw std::invalid_argument("version " + tree["version"].dump() + ", wanted 1");
    LocalManifest m;
    m.update = tree.at("update");
    m.rank = tree.at("rank");
    m.ranks = tree.at("ranks");
    m.save = tree.at("save");
    m.bytes = tree.at("bytes");
    m.state_bytes = tree.at("state_bytes");
    m.queue_bytes = tree.at("queue_bytes");
    for (const auto& s : tree.at("slabs")) {
      m.slabs.push_back({s.at("group"), s.at("name"), s.at("shape"), s.at("begin"), s.at("end"), s.at("offset")});
    }
    for (const auto& p : tree.at("pieces")) m.pieces.push_back(from_hex(p));
    check_consistent(m);
    return m;
  } catch (const std::exception& e) {
    throw Error(ExitCode::file, fmt::format("{} cannot be used: {}", path, e.what()));
  }
}

std::string local_part(const std::string& folder, std::int64_t rank) {
  return fmt::format("{}/rank-{:05d}", folder, rank);
}

LocalManifest read_local_manifest(const std::string& part) {
  const std::string path = part + ".json";
  std::error_code ec;
  const auto length = std::filesystem::file_size(path, ec);
  if (ec || length > kMaxManifestBytes) {
    throw Error(ExitCode::file, fmt::format("{}: {}", path, ec ? ec.message() : "too large"));
  }
  std::string text(length, '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(length))) {
    throw Error(ExitCode::file, fmt::format("{} cannot be read", path));
  }
  auto manifest = parse_local_manifest(text, path);
  const auto bytes = std::filesystem::file_size(part + ".bin", ec);
  if (ec || bytes != manifest.bytes) {
    throw Error(ExitCode::file, fmt::format("{}.bin: {}, wanted {} bytes", part,
                                            ec ? ec.message() : fmt::format("{} bytes", bytes), manifest.bytes));
  }
  if (local_part("", manifest.rank) != "/" + std::filesystem::path(part).filename().string()) {
    throw Error(ExitCode::file, fmt::format("{} says that it is of rank {}", path, manifest.rank));
  }
  return manifest;
}

std::string verify_local(const std::string& part) {
  try {
    const auto manifest = read_local_manifest(part);
    const RawFile file(part + ".bin");
    std::vector<std::byte> buffer(std::min<std::uint64_t>(kLocalPieceBytes, manifest.bytes));
    std::uint64_t at = 0;
    for (const auto sum : manifest.pieces) {
      const auto n = std::min<std::uint64_t>(kLocalPieceBytes, manifest.bytes - at);
      file.read(at, buffer.data(), n);
      if (checksum(buffer.data(), n) != sum) {
        return fmt::format("{}.bin: bytes {} to {} have another checksum than when written", part, at, at + n);
      }
      at += n;
    }
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

LocalContents::LocalContents(const std::vector<Slab>& slabs, const std::vector<std::uint8_t>& state,
                             const std::vector<float>& queue, LocalManifest& manifest)
    : manifest_(manifest), piece_(kLocalPieceBytes) {
  manifest.state_bytes = state.size();
  manifest.queue_bytes = queue.size() * sizeof(float);
  add(state.data(), manifest.state_bytes);
  add(queue.data(), manifest.queue_bytes);
  for (const auto& slab : slabs) {
    if (slab.begin == slab.end) continue;
    manifest.slabs.push_back({slab.group, slab.name, slab.shape, slab.begin, slab.end, manifest.bytes});
    add(slab.data, bytes_of(manifest.slabs.back()));
  }
}

void LocalContents::add(const void* data, std::uint64_t bytes) {
  if (bytes == 0) return;
  stretches_.emplace_back(static_cast<const std::byte*>(data), bytes);
  manifest_.bytes += bytes;
}

std::span<const std::byte> LocalContents::next() {
  std::size_t filled = 0;
  while (filled < piece_.size() && stretch_ < stretches_.size()) {
    const auto from = stretches_[stretch_].subspan(within_);
    const auto n = std::min(from.size(), piece_.size() - filled);
    std::memcpy(piece_.data() + filled, from.data(), n);
    filled += n;
    within_ += n;
    if (within_ == stretches_[stretch_].size()) ++stretch_, within_ = 0;
  }
  if (filled > 0) manifest_.pieces.push_back(checksum(piece_.data(), filled));
  return std::span(piece_).first(filled);
}

LocalOutput::LocalOutput(std::string path)
    : path_(std::move(path)), fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) {
  if (fd_ < 0) error_ = errno;
}

LocalOutput::~LocalOutput() {
  if (fd_ >= 0) close(fd_);
}

void LocalOutput::write(std::span<const std::byte> bytes) {
  while (!bytes.empty() && error_ == 0) {
    const auto n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error_ = n < 0 ? errno : EIO;
      return;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

void LocalOutput::finish() {
  if (error_ == 0 && fsync(fd_) != 0) error_ = errno;
  if (error_ == 0) return;
  errno = error_;
  fail_with_errno("write", path_);
}

}  // namespace seer::checkpoint
