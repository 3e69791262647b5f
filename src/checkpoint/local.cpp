// SPDX-License-Identifier: Apache-2.0
// Writes and finds local sets. local_load.cpp loads them.
#include "seer/checkpoint/local.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "local_file.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/folders.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr std::size_t kKeptSets = 2;  // one complete set must exist while the next is written

std::string random_name() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

std::string expanded(std::string pattern, int node) {
  const auto put = [&](const std::string& mark, const std::string& text) {
    for (std::size_t at = 0; (at = pattern.find(mark, at)) != std::string::npos; at += text.size()) {
      pattern.replace(at, mark.size(), text);
    }
  };
  put("%h", log::host_name());
  put("%n", std::to_string(node));
  return pattern;
}

std::string identity_file(const std::string& run_dir) {
  return run_dir + "/identity";
}

// A copy of a run folder has another inode. The name stored in it then belongs to the original folder's local copies.
std::string inode_of(const std::string& run_dir) {
  struct stat info {};
  return ::stat(run_dir.c_str(), &info) == 0 ? std::to_string(info.st_ino) : "";
}

// Root only: the name that identifies the run's sets on the local disks, "" if it has none yet.
std::string identity(const std::string& run_dir) {
  std::string name, inode;
  if (std::ifstream in(identity_file(run_dir)); in) in >> name >> inode;
  const bool usable = name.size() == 16 && name.find_first_not_of("0123456789abcdef") == std::string::npos;
  return usable && inode == inode_of(run_dir) ? name : "";
}

std::string folder_of(const std::string& parent, std::int64_t update) {
  return fmt::format("{}/{}", parent, folder_name(update));
}

std::vector<std::pair<std::int64_t, fs::path>> updates_in(const std::string& folder) {
  std::vector<std::pair<std::int64_t, fs::path>> out;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    if (const auto update = folder_update(entry.path().filename())) out.emplace_back(*update, entry.path());
  }
  std::sort(out.begin(), out.end(), std::greater<>());
  return out;
}

// The parts on a node's disk as [update, save, rank, ranks]. Their bytes are not verified.
json parts_in(const std::string& folder, std::int64_t after) {
  json out = json::array();
  for (const auto& [update, path] : updates_in(folder)) {
    if (update <= after) continue;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(path, ec)) {
      if (entry.path().extension() != ".json") continue;
      try {
        const auto m = read_local_manifest((path / entry.path().stem()).string());
        if (m.update == update) out.push_back({m.update, m.save, m.rank, m.ranks});
      } catch (const Error&) {
        // incomplete part: the set will be found to lack it
      }
    }
  }
  return out;
}

/// A set according to the nodes' listings: which nodes have which part.
struct Candidate {
  std::int64_t ranks = 0;
  std::map<std::int64_t, std::set<int>> nodes_of;  ///< rank that saved -> nodes
  std::string missing() const {
    std::vector<std::int64_t> out;
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      if (!nodes_of.contains(rank)) out.push_back(rank);
    }
    return out.empty() ? "" : fmt::format("{} of its {} parts, first that of rank {},", out.size(), ranks, out[0]);
  }
};

}  // namespace

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
    if (comm.is_root()) write_text(identity_file(run_dir_), name_ + " " + inode_of(run_dir_) + "\n");
  });
  // Remove nothing until everything that can fail has succeeded on every rank.
  if (nodes_.leader_of(nodes_.node_of(comm.rank())) == comm.rank()) {
    std::error_code ec;
    if (!forgotten_.empty()) fs::remove_all(forgotten_, ec);
    for (const auto& [number, path] : updates_in(folder_)) {
      if (number > update) fs::remove_all(path, ec);
    }
  }
  comm.barrier();
}

void LocalSets::save(const comm::Communicator& comm, const std::vector<Slab>& slabs, const State& state) const {
  const int me = comm.rank(), target = partner_ ? nodes_.partner_of(me) : me;
  LocalManifest mine{.update = state.update, .rank = me, .ranks = comm.size(), .save = random_name()};
  comm.broadcast(mine.save);
  const auto packed = comm.is_root() ? pack(state) : std::vector<std::uint8_t>();
  const auto values = comm.is_root() ? tensor_values(state) : std::vector<float>();
  LocalContents contents(slabs, packed, values, mine);

  /// A part that this rank writes for another rank.
  struct Copy {
    int rank;
    std::uint64_t bytes;
    std::unique_ptr<LocalOutput> out;
    std::vector<std::byte> piece;
    std::string manifest;
  };
  std::vector<Copy> copies;
  const auto sizes = comm.all_gather(static_cast<std::int64_t>(mine.bytes));
  for (int rank = 0; partner_ && rank < comm.size(); ++rank) {
    if (nodes_.partner_of(rank) != me) continue;
    copies.push_back({rank, static_cast<std::uint64_t>(sizes[static_cast<std::size_t>(rank)]), nullptr, {}, ""});
  }
  const auto folder = folder_of(folder_, state.update);
  const auto clean = [&] {
    std::error_code ec;
    for (const char* extension : {".json", ".bin"}) {
      fs::remove(local_part(folder, me) + extension, ec);
      for (const auto& copy : copies) fs::remove(local_part(folder, copy.rank) + extension, ec);
    }
  };
  try {
    std::unique_ptr<LocalOutput> out;
    comm::agree(comm, "creating local copies", [&] {
      std::error_code ec;
      fs::create_directories(folder, ec);
      if (ec) throw Error(ExitCode::file, fmt::format("cannot make {}: {}", folder, ec.message()));
      clean();  // remove what an earlier start left for this update
      out = std::make_unique<LocalOutput>(local_part(folder, me) + ".bin");
      for (auto& copy : copies) copy.out = std::make_unique<LocalOutput>(local_part(folder, copy.rank) + ".bin");
    });
    // All ranks exchange their next piece at the same time. If a rank's disk fails, the rank continues, so that the
    // others need not know yet.
    for (std::uint64_t at = 0;; at += kLocalPieceBytes) {
      const auto piece = contents.next();
      std::vector<comm::Outgoing> sent;
      std::vector<comm::Incoming> received;
      if (target != me && !piece.empty()) sent.push_back({target, piece});
      for (auto& copy : copies) {
        copy.piece.resize(copy.bytes > at ? std::min<std::uint64_t>(kLocalPieceBytes, copy.bytes - at) : 0);
        if (!copy.piece.empty()) received.push_back({copy.rank, copy.piece});
      }
      if (piece.empty() && received.empty()) break;
      comm::exchange(comm, sent, received);
      out->write(piece);
      for (auto& copy : copies) copy.out->write(copy.piece);
    }
    // Exchange the manifests. The receivers do not know their sizes, so gather these first.
    const auto text = to_json(mine);
    const auto lengths = comm.all_gather(static_cast<std::int64_t>(text.size()));
    std::vector<comm::Outgoing> sent;
    std::vector<comm::Incoming> received;
    if (target != me) sent.push_back({target, std::as_bytes(std::span(text))});
    for (auto& copy : copies) {
      copy.manifest.resize(static_cast<std::size_t>(lengths[static_cast<std::size_t>(copy.rank)]));
      received.push_back({copy.rank, std::as_writable_bytes(std::span(copy.manifest))});
    }
    comm::exchange(comm, sent, received);
    comm::agree(comm, "writing local copies", [&] {
      out->finish();
      for (auto& copy : copies) copy.out->finish();
    });
    // Mark parts as complete (write their .json) only now, when all parts of the set are on disk.
    comm::agree(comm, "completing local copies", [&] {
      write_text(local_part(folder, me) + ".json", text);
      for (const auto& copy : copies) write_text(local_part(folder, copy.rank) + ".json", copy.manifest);
      sync_path(folder);
      sync_path(folder_);
    });
  } catch (const Error&) {
    clean();
    std::error_code ec;
    fs::remove(folder, ec);  // succeeds for the node's last rank
    throw;
  }
  if (nodes_.leader_of(nodes_.node_of(me)) != me) return;
  const auto kept = updates_in(folder_);
  std::error_code ec;
  for (std::size_t i = kKeptSets; i < kept.size(); ++i) fs::remove_all(kept[i].second, ec);
}

std::optional<LocalSets::Found> LocalSets::find(const comm::Communicator& comm, std::int64_t after) const {
  const int node = nodes_.node_of(comm.rank());
  const bool leads = nodes_.leader_of(node) == comm.rank();
  const auto listings = comm.all_gather(leads ? parts_in(folder_, after).dump() : std::string("[]"));
  std::map<std::pair<std::int64_t, std::string>, Candidate, std::greater<>> candidates;
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const auto& part : json::parse(listings[static_cast<std::size_t>(rank)])) {
      auto& candidate = candidates[{part.at(0).get<std::int64_t>(), part.at(1).get<std::string>()}];
      candidate.ranks = part.at(3);
      candidate.nodes_of[part.at(2).get<std::int64_t>()].insert(nodes_.node_of(rank));
    }
  }
  for (const auto& [key, candidate] : candidates) {
    const auto warn = [&, update = key.first](const std::string& problem) {
      if (comm.is_root()) log::warn(fmt::format("the local copy of update {} is not used: {}", update, problem));
    };
    if (const auto missing = candidate.missing(); !missing.empty()) {
      warn(missing + " are on no node's disk");
      continue;
    }
    // The ranks of a node share the work of verifying its parts.
    json good = json::array(), bad = json::array();
    int place = 0;
    for (const auto& [part, nodes] : candidate.nodes_of) {
      const auto& ranks = nodes_.ranks_of(node);
      if (!nodes.contains(node) || ranks[static_cast<std::size_t>(place++) % ranks.size()] != comm.rank()) continue;
      const auto problem = verify_local(local_part(folder_of(folder_, key.first), part));
      problem.empty() ? good.push_back(part) : bad.push_back(fmt::format("{}: {}", log::host_name(), problem));
    }
    const auto verdicts = comm.all_gather(json{good, bad}.dump(-1, ' ', false, json::error_handler_t::replace));
    Found found{key.first, candidate.ranks, key.second,
                std::vector<std::vector<int>>(static_cast<std::size_t>(candidate.ranks))};
    for (int rank = 0; rank < comm.size(); ++rank) {
      const auto verdict = json::parse(verdicts[static_cast<std::size_t>(rank)]);
      for (const auto& part : verdict.at(0)) found.nodes[part.get<std::size_t>()].push_back(nodes_.node_of(rank));
      for (const auto& problem : verdict.at(1)) log::warn("a local copy is damaged: " + problem.get<std::string>());
    }
    if (std::none_of(found.nodes.begin(), found.nodes.end(), [](const auto& nodes) { return nodes.empty(); })) {
      return found;
    }
    warn("all copies of some part are damaged");
  }
  return std::nullopt;
}

}  // namespace seer::checkpoint
