// SPDX-License-Identifier: Apache-2.0
// Writes and finds local sets, and reads and verifies their parts. local_load.cpp loads them.
#include "seer/checkpoint/local.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <regex>

#include "local_file.hpp"
#include "sealed.hpp"
#include "seer/base/log.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr const char* kIdentityFile = "/identity";  // in the run folder
constexpr std::size_t kKeptSets = 2;                // one complete set must exist while the next is written

/// The folder that checkpoint.local_dir means on a node.
std::string expanded(const std::string& pattern, int node) {
  const auto named = std::regex_replace(pattern, std::regex("%h"), log::host_name());
  return std::regex_replace(named, std::regex("%n"), std::to_string(node));
}

// A copy of a run folder has another inode. The name stored in it then belongs to the original folder's local copies.
std::string inode_of(const std::string& run_dir) {
  struct stat info {};
  return ::stat(run_dir.c_str(), &info) == 0 ? std::to_string(info.st_ino) : "";
}

// Root only: the name that identifies the run's sets on the local disks, "" if it has none yet.
std::string identity(const std::string& run_dir) {
  std::string name, inode;
  if (std::ifstream in(run_dir + kIdentityFile); in) in >> name >> inode;
  const bool usable = name.size() == 16 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  return usable && inode == inode_of(run_dir) ? name : "";
}

// The parts on a node's disk as [update, save, rank, ranks]. Their bytes are not verified.
json parts_in(const std::string& folder, std::int64_t after) {
  json out = json::array();
  std::error_code ec;
  for (const auto& [update, path] : folders_in(folder, ec)) {
    if (update <= after) continue;
    for (const auto& entry : fs::directory_iterator(path, ec)) {
      if (entry.path().extension() != ".json") continue;
      try {
        const auto m = read_local_manifest((path / entry.path().stem()).string());
        if (m.update == update) out.push_back({m.update, m.save, m.rank, m.ranks});
      } catch (const Error&) {  // incomplete part: the set will be found to lack it
      }
    }
  }
  return out;
}

/// Calls visit(key, member) for the members of a manifest that are simple values.
void visit_values(auto& m, auto visit) {
  visit("update", m.update);
  visit("rank", m.rank);
  visit("ranks", m.ranks);
  visit("save", m.save);
  visit("bytes", m.bytes);
  visit("state_bytes", m.state_bytes);
  visit("queue_bytes", m.queue_bytes);
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
    demand(s.bytes() <= m.bytes && s.offset_bytes <= m.bytes - s.bytes(), "a slab lies outside the file");
  }
}

/// Reads every byte. Error(file) names the first problem.
void verify_local(const std::string& part) {
  const auto manifest = read_local_manifest(part);
  const RawFile file(part + ".bin");
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kLocalPieceBytes, manifest.bytes));
  std::uint64_t at = 0;
  for (const auto sum : manifest.pieces) {
    const auto n = std::min<std::uint64_t>(kLocalPieceBytes, manifest.bytes - at);
    file.read(at, buffer.data(), n);
    if (checksum(buffer.data(), n) != sum)
      throw Error(ExitCode::file,
                  fmt::format("{}.bin: bytes {} to {} have another checksum than when written", part, at, at + n));
    at += n;
  }
}

/// Copies bytes [at, at + out.size()) of the concatenated stretches.
void gather(const std::vector<std::span<const std::byte>>& stretches, std::uint64_t at, std::span<std::byte> out) {
  for (const auto& stretch : stretches) {
    const auto skipped = std::min<std::uint64_t>(at, stretch.size());
    const auto wanted = stretch.subspan(skipped).first(std::min(stretch.size() - skipped, out.size()));
    std::ranges::copy(wanted, out.begin());
    out = out.subspan(wanted.size());
    at -= skipped;
  }
}

}  // namespace

std::string to_json(const LocalManifest& m) {
  json slabs = json::array(), pieces = json::array();
  for (const auto& s : m.slabs)
    slabs.push_back({{"group", s.group},
                     {"name", s.name},
                     {"shape", s.shape},
                     {"begin", s.begin},
                     {"end", s.end},
                     {"offset", s.offset_bytes}});
  for (const auto sum : m.pieces) pieces.push_back(hex(sum));
  json tree = {{"format", "seer-local"}, {"version", 1}, {"slabs", slabs}, {"pieces", pieces}};
  visit_values(m, [&](const char* key, const auto& value) { tree[key] = value; });
  return sealed(std::move(tree), -1);
}

LocalManifest parse_local_manifest(const std::string& text, const std::string& path) {
  return parse_sealed(text, path, "seer-local", [](const json& tree) {
    LocalManifest m;
    visit_values(m, [&](const char* key, auto& value) { tree.at(key).get_to(value); });
    for (const auto& s : tree.at("slabs"))
      m.slabs.push_back({s.at("group"), s.at("name"), s.at("shape"), s.at("begin"), s.at("end"), s.at("offset")});
    for (const auto& p : tree.at("pieces")) m.pieces.push_back(from_hex(p));
    check_consistent(m);
    return m;
  });
}

std::string local_part(const std::string& folder, std::int64_t rank) {
  return fmt::format("{}/rank-{:05d}", folder, rank);
}

LocalManifest read_local_manifest(const std::string& part) {
  const std::string path = part + ".json";
  auto manifest = parse_local_manifest(read_sealed(path), path);
  std::error_code ec;
  const auto bytes = std::filesystem::file_size(part + ".bin", ec);
  if (ec || bytes != manifest.bytes)
    throw Error(ExitCode::file, fmt::format("{}.bin: {}, wanted {} bytes", part,
                                            ec ? ec.message() : fmt::format("{} bytes", bytes), manifest.bytes));
  if (local_part("", manifest.rank) != "/" + std::filesystem::path(part).filename().string())
    throw Error(ExitCode::file, fmt::format("{} says that it is of rank {}", path, manifest.rank));
  return manifest;
}

LocalSets::LocalSets(const comm::Communicator& comm, const std::string& run_dir, const Options& options)
    : nodes_(comm), partner_(options.partner && nodes_.count() > 1), run_dir_(run_dir) {
  std::string before;
  if (comm.is_root()) {
    before = identity(run_dir);
    name_ = before.empty() || options.forget ? random_name() : before;
  }
  comm.broadcast(name_);
  comm.broadcast(before);
  const fs::path parent = expanded(options.folder, nodes_.node_of(comm.rank()));
  folder_ = (parent / name_).string();
  if (!before.empty() && before != name_) forgotten_ = (parent / before).string();
}

void LocalSets::go_on_from(const comm::Communicator& comm, std::int64_t update) const {
  comm::agree(comm, "making the folder of local copies", [&] {
    std::error_code ec;
    fs::create_directories(folder_, ec);
    if (!ec) return;
    throw Error(ExitCode::file, fmt::format("cannot make {} on {}: {}", folder_, log::host_name(), ec.message()),
                "set checkpoint.local_dir to a folder that every node may write to");
  });
  comm::agree(comm, "naming the run's local copies", [&] {
    if (comm.is_root()) write_text(run_dir_ + kIdentityFile, name_ + " " + inode_of(run_dir_) + "\n");
  });
  // Remove nothing until everything that can fail has succeeded on every rank.
  if (nodes_.leader_of(nodes_.node_of(comm.rank())) == comm.rank()) {
    std::error_code ec;
    if (!forgotten_.empty()) fs::remove_all(forgotten_, ec);
    for (const auto& [number, path] : folders_in(folder_, ec))
      if (number > update) fs::remove_all(path, ec);
  }
  comm.barrier();
}

void LocalSets::save(const comm::Communicator& comm, const std::vector<Slab>& slabs, const State& state) const {
  const int me = comm.rank(), target = partner_ ? nodes_.partner_of(me) : me;
  LocalManifest mine{.update = state.update, .rank = me, .ranks = comm.size(), .save = random_name()};
  comm.broadcast(mine.save);
  const auto packed = comm.is_root() ? pack(state) : "";
  const auto values = comm.is_root() ? tensor_values(state) : std::vector<float>();
  // The contents of this rank's part, where they are in memory.
  std::vector<std::span<const std::byte>> stretches = {std::as_bytes(std::span(packed)),
                                                       std::as_bytes(std::span(values))};
  mine.state_bytes = stretches[0].size();
  mine.queue_bytes = stretches[1].size();
  mine.bytes = mine.state_bytes + mine.queue_bytes;
  for (const auto& slab : slabs) {
    if (slab.begin == slab.end) continue;
    mine.slabs.push_back({slab.group, slab.name, slab.shape, slab.begin, slab.end, mine.bytes});
    stretches.emplace_back(reinterpret_cast<const std::byte*>(slab.data), mine.slabs.back().bytes());
    mine.bytes += mine.slabs.back().bytes();
  }

  /// A part on this rank's disk: first its own one, then copies of other ranks'.
  struct Part {
    int rank;
    std::uint64_t bytes;
    std::string path;  ///< without extension
    std::unique_ptr<RawFile> out;
    std::vector<std::byte> piece;
    std::string manifest;
  };
  std::vector<Part> parts;
  const auto folder = set_folder(state.update);
  const auto sizes = comm.all_gather(static_cast<std::int64_t>(mine.bytes));
  const auto add = [&](int rank) {
    const auto bytes = static_cast<std::uint64_t>(sizes[static_cast<std::size_t>(rank)]);
    parts.push_back({rank, bytes, local_part(folder, rank), nullptr, {}, ""});
  };
  add(me);
  for (int rank = 0; partner_ && rank < comm.size(); ++rank)
    if (nodes_.partner_of(rank) == me) add(rank);
  const auto copies = std::span(parts).subspan(1);
  const auto clean = [&] {
    std::error_code ec;
    for (const auto& part : parts)
      for (const char* extension : {".json", ".bin"}) fs::remove(part.path + extension, ec);
  };
  // Sends bytes of this rank to its partner, and fills the same member of each copy with bytes of its rank.
  const auto exchange = [&](auto Part::*member) {
    std::vector<comm::Outgoing> sent;
    std::vector<comm::Incoming> received;
    if (const auto own = std::as_bytes(std::span(parts[0].*member)); target != me && !own.empty())
      sent.push_back({target, own});
    for (auto& copy : copies) {
      const auto room = std::as_writable_bytes(std::span(copy.*member));
      if (!room.empty()) received.push_back({copy.rank, room});
    }
    comm::exchange(comm, sent, received);
  };
  try {
    comm::agree(comm, "creating local copies", [&] {
      std::error_code ec;
      fs::create_directories(folder, ec);
      if (ec) throw Error(ExitCode::file, fmt::format("cannot make {}: {}", folder, ec.message()));
      clean();  // remove what an earlier start left for this update
      for (auto& part : parts) part.out = std::make_unique<RawFile>(part.path + ".bin", RawFile::Access::create);
    });
    // All ranks exchange their next piece at the same time. If a rank's disk fails, the rank continues, so that the
    // others need not know yet.
    std::optional<Error> failure;
    const auto longest = std::ranges::max_element(parts, {}, &Part::bytes)->bytes;
    for (std::uint64_t at = 0; at < longest; at += kLocalPieceBytes) {
      for (auto& part : parts)
        part.piece.resize(part.bytes > at ? std::min<std::uint64_t>(kLocalPieceBytes, part.bytes - at) : 0);
      if (auto& own = parts[0].piece; !own.empty()) {
        gather(stretches, at, own);
        mine.pieces.push_back(checksum(own.data(), own.size()));
      }
      exchange(&Part::piece);
      attempt(failure, [&] {
        for (const auto& part : parts) part.out->write(at, part.piece.data(), part.piece.size());
      });
    }
    // Exchange the manifests. The receivers do not know their sizes, so gather these first.
    parts[0].manifest = to_json(mine);
    const auto lengths = comm.all_gather(static_cast<std::int64_t>(parts[0].manifest.size()));
    for (auto& part : parts)
      part.manifest.resize(static_cast<std::size_t>(lengths[static_cast<std::size_t>(part.rank)]));
    exchange(&Part::manifest);
    comm::agree(comm, "writing local copies", [&] {
      if (failure) throw Error(*failure);
      for (const auto& part : parts) part.out->sync();
    });
    // Mark parts as complete (write their .json) only now, when all parts of the set are on disk.
    comm::agree(comm, "completing local copies", [&] {
      for (const auto& part : parts) write_text(part.path + ".json", part.manifest);
      RawFile(folder).sync();
      RawFile(folder_).sync();
    });
  } catch (const Error&) {
    clean();
    std::error_code ec;
    fs::remove(folder, ec);  // succeeds for the node's last rank
    throw;
  }
  if (nodes_.leader_of(nodes_.node_of(me)) != me) return;
  std::error_code ec;
  const auto kept = folders_in(folder_, ec);
  for (std::size_t i = kKeptSets; i < kept.size(); ++i) fs::remove_all(kept[i].second, ec);
}

std::optional<LocalSets::Found> LocalSets::find(const comm::Communicator& comm, std::int64_t after) const {
  const int node = nodes_.node_of(comm.rank());
  const auto& ranks_here = nodes_.ranks_of(node);
  const bool leads = ranks_here.front() == comm.rank();
  const auto listings = comm.all_gather(leads ? parts_in(folder_, after).dump() : std::string("[]"));
  std::map<std::pair<std::int64_t, std::string>, Found, std::greater<>> listed;  // newest first, nothing verified
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const auto& part : json::parse(listings[static_cast<std::size_t>(rank)])) {
      const std::int64_t update = part.at(0), ranks = part.at(3);
      const std::string save = part.at(1);
      auto& set = listed.try_emplace({update, save}, Found{update, ranks, save, {}}).first->second;
      set.nodes.resize(static_cast<std::size_t>(ranks));
      set.nodes.at(part.at(2)).push_back(nodes_.node_of(rank));
    }
  }
  const auto lacking = [](const Found& set) { return std::ranges::find(set.nodes, std::vector<int>()); };
  for (const auto& [key, set] : listed) {
    const auto folder = set_folder(set.update);
    const auto warn = [&](const std::string& problem) {
      if (comm.is_root()) log::warn(fmt::format("the local copy of update {} is not used: {}", set.update, problem));
    };
    if (const auto first = lacking(set); first != set.nodes.end()) {
      warn(fmt::format("{} of its {} parts are on no node's disk; the first of them is that of rank {}",
                       std::ranges::count(set.nodes, std::vector<int>()), set.ranks, first - set.nodes.begin()));
      continue;
    }
    // The ranks of a node share the work of verifying its parts.
    json good = json::array(), bad = json::array();
    std::size_t place = 0;
    for (std::int64_t part = 0; part < set.ranks; ++part) {
      const auto& nodes = set.nodes[static_cast<std::size_t>(part)];
      if (std::ranges::find(nodes, node) == nodes.end()) continue;
      if (ranks_here[place++ % ranks_here.size()] != comm.rank()) continue;
      const auto problem = problem_of([&] { verify_local(local_part(folder, part)); });
      problem.empty() ? good.push_back(part) : bad.push_back(fmt::format("{}: {}", log::host_name(), problem));
    }
    const auto verdicts = comm.all_gather(json{good, bad}.dump(-1, ' ', false, json::error_handler_t::replace));
    Found found{set.update, set.ranks, set.save, std::vector<std::vector<int>>(set.nodes.size())};
    for (int rank = 0; rank < comm.size(); ++rank) {
      const auto verdict = json::parse(verdicts[static_cast<std::size_t>(rank)]);
      for (const auto& part : verdict.at(0)) found.nodes[part.get<std::size_t>()].push_back(nodes_.node_of(rank));
      for (const auto& problem : verdict.at(1)) log::warn("a local copy is damaged: " + problem.get<std::string>());
    }
    if (lacking(found) == found.nodes.end()) return found;
    warn("all copies of some part are damaged");
  }
  return std::nullopt;
}

}  // namespace seer::checkpoint
