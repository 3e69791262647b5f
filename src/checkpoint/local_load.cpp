// SPDX-License-Identifier: Apache-2.0
// Loads a local set on any number of ranks. Every rank knows the manifests of all parts and the wishes of all ranks, so
// all ranks compute the same plan of who sends what to whom, without requests.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "local_file.hpp"
#include "seer/checkpoint/local.hpp"
#include "seer/checkpoint/raw.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace {

using nlohmann::json;
using Key = std::pair<std::string, std::string>;  // group and name

/// The range of a tensor that a rank wants. `data` is null for other ranks' wishes.
struct Wish {
  int rank;
  std::int64_t begin, end;
  float* data;
};

std::map<Key, std::vector<Wish>> wishes_of_all(const comm::Communicator& comm, const std::vector<Slab>& slabs) {
  json mine = json::array();
  std::map<Key, float*> data;
  for (const auto& slab : slabs) {
    if (slab.begin == slab.end) continue;
    mine.push_back({slab.group, slab.name, slab.begin, slab.end});
    data[{slab.group, slab.name}] = slab.data;
  }
  std::map<Key, std::vector<Wish>> out;
  const auto of_ranks = comm.all_gather(mine.dump());
  for (int rank = 0; rank < comm.size(); ++rank) {
    for (const auto& w : json::parse(of_ranks[static_cast<std::size_t>(rank)])) {
      const Key key{w.at(0).get<std::string>(), w.at(1).get<std::string>()};
      out[key].push_back({rank, w.at(2), w.at(3), rank == comm.rank() ? data.at(key) : nullptr});
    }
  }
  return out;
}

std::vector<LocalManifest> manifests_of_all(const comm::Communicator& comm, const comm::Nodes& nodes,
                                            const LocalSets::Found& set, const std::string& folder) {
  json mine = json::array();
  comm::agree(comm, "reading the manifests of local copies", [&] {
    for (std::size_t part = 0; part < set.nodes.size(); ++part) {
      if (nodes.leader_of(set.nodes[part].front()) != comm.rank()) continue;
      mine.push_back(to_json(read_local_manifest(local_part(folder, static_cast<std::int64_t>(part)))));
    }
  });
  std::vector<LocalManifest> out(set.nodes.size());
  for (const auto& of_rank : comm.all_gather(mine.dump())) {
    for (const auto& text : json::parse(of_rank)) {
      auto manifest = parse_local_manifest(text.get<std::string>(), "a local copy's manifest");
      const auto part = static_cast<std::size_t>(manifest.rank);
      ensure(part < out.size(), "a local copy is of a rank that its set does not have");
      out[part] = std::move(manifest);
    }
  }
  return out;
}

// Checks that every wanted element is in some part, and that the tensors have the wanted shapes.
void check_wishes(const std::vector<LocalManifest>& parts, const std::vector<Slab>& slabs) {
  std::map<Key, std::vector<const LocalSlab*>> offers;
  for (const auto& part : parts)
    for (const auto& slab : part.slabs) offers[{slab.group, slab.name}].push_back(&slab);
  for (const auto& slab : slabs) {
    std::int64_t found = 0;
    std::string other;
    for (const auto* offer : offers[{slab.group, slab.name}]) {
      if (offer->shape != slab.shape) other = shape_text(offer->shape);
      found += std::max<std::int64_t>(0, std::min(offer->end, slab.end) - std::max(offer->begin, slab.begin));
    }
    const bool there = slab.begin == slab.end || found == slab.end - slab.begin;
    if (there && other.empty()) continue;
    throw Error(
        ExitCode::file,
        fmt::format("the local copy has {} of /{}/{}, wanted shape {}", other.empty() ? "not all" : "shape " + other,
                    slab.group, slab.name, shape_text(slab.shape)),
        "was it written with another [model] or [head]?");
  }
}

}  // namespace

State LocalSets::load(const comm::Communicator& comm, const Found& set, const std::vector<Slab>& slabs) const {
  const auto folder = set_folder(set.update);
  const auto parts = manifests_of_all(comm, nodes_, set, folder);
  comm::agree(comm, "looking through a local copy", [&] { check_wishes(parts, slabs); });
  const auto wishes = wishes_of_all(comm, slabs);
  std::optional<Error> failure;
  std::map<std::size_t, RawFile> files;  // parts on this rank's node, each opened when it is first read
  const auto read = [&](std::size_t part, std::uint64_t offset, void* to, std::uint64_t bytes) {
    attempt(failure, [&] {
      const auto path = local_part(folder, static_cast<std::int64_t>(part)) + ".bin";
      files.try_emplace(part, path).first->second.read(offset, to, bytes);
    });
  };

  // All ranks go through the transfers in the same order. So both ranks of the first unfinished transfer can always
  // proceed with it, and there is no deadlock.
  std::vector<float> staged;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const int sender = nodes_.leader_of(set.nodes[p].front());
    for (const auto& slab : parts[p].slabs) {
      const auto wanted = wishes.find({slab.group, slab.name});
      if (wanted == wishes.end()) continue;
      for (const auto& wish : wanted->second) {
        const auto begin = std::max(slab.begin, wish.begin), end = std::min(slab.end, wish.end);
        if (begin >= end) continue;
        const bool near = std::ranges::find(set.nodes[p], nodes_.node_of(wish.rank)) != set.nodes[p].end();
        if (comm.rank() != wish.rank && (near || comm.rank() != sender)) continue;
        constexpr auto kPieceFloats = static_cast<std::int64_t>(kLocalPieceBytes / sizeof(float));
        for (auto at = begin; at < end; at += kPieceFloats) {
          const auto count = static_cast<std::size_t>(std::min(end - at, kPieceFloats));
          const auto offset = slab.offset_bytes + static_cast<std::uint64_t>(at - slab.begin) * sizeof(float);
          const auto bytes = count * sizeof(float);
          if (near) {
            read(p, offset, wish.data + (at - wish.begin), bytes);
          } else if (comm.rank() == wish.rank) {
            const comm::Incoming in{sender, std::as_writable_bytes(std::span(wish.data + (at - wish.begin), count))};
            comm::exchange(comm, {}, std::span(&in, 1));
          } else {
            staged.resize(count);
            read(p, offset, staged.data(), bytes);
            const comm::Outgoing out{wish.rank, std::as_bytes(std::span(staged))};
            comm::exchange(comm, std::span(&out, 1), {});
          }
        }
      }
    }
  }

  const int teller = nodes_.leader_of(set.nodes[0].front());
  std::string packed(parts[0].state_bytes, '\0');
  std::vector<float> values(parts[0].queue_bytes / sizeof(float));
  if (comm.rank() == teller) {
    read(0, 0, packed.data(), packed.size());
    read(0, packed.size(), values.data(), parts[0].queue_bytes);
  }
  comm::agree(comm, "reading a local copy", [&] {
    if (failure) throw Error(*failure);
  });
  comm.broadcast(packed.data(), packed.size(), teller);
  comm.broadcast(values.data(), values.size() * sizeof(float), teller);
  State state;
  comm::agree(comm, "reading a local copy's state", [&] {
    try {
      unpack(packed, state);
      set_tensor_values(state, values);
    } catch (const std::exception& e) {
      throw Error(ExitCode::file, fmt::format("the local copy of update {}: its state: {}", set.update, e.what()));
    }
  });
  return state;
}

}  // namespace seer::checkpoint
