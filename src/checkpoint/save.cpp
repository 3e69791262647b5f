// SPDX-License-Identifier: Apache-2.0
// Saves a checkpoint. The ranks agree on the contents, the root lays out the file, all ranks write and sync it, the
// root writes the manifest and renames the folder. If a step fails, all ranks learn it at the next agreement and leave
// together. The run can continue, since earlier checkpoints are untouched.
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "seer/base/build_info.hpp"
#include "seer/base/checksum.hpp"
#include "seer/base/error.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/folders.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "skeleton.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

// Describes what this rank holds, with checksums. The root also lists tensors of which it holds nothing, so that a
// tensor that no rank writes is noticed.
std::string describe_mine(const std::vector<Slab>& slabs, bool is_root) {
  json list = json::array();
  for (const auto& slab : slabs) {
    std::int64_t elements = 1;
    for (const auto extent : slab.shape) elements *= extent;
    ensure(slab.begin >= 0 && slab.begin <= slab.end && slab.end <= elements, "a slab lies outside its tensor");
    if (slab.begin == slab.end && !is_root) continue;
    json pieces = json::array();
    for (auto at = slab.begin; at < slab.end; at += kPieceElements) {
      const auto end = std::min(slab.end, at + kPieceElements);
      const auto bytes = static_cast<std::size_t>(end - at) * sizeof(float);
      pieces.push_back({at, end, checksum(slab.data + (at - slab.begin), bytes)});
    }
    list.push_back({slab.group, slab.name, slab.shape, pieces});
  }
  return list.dump();
}

std::vector<TensorRecord> merge(const std::vector<std::string>& of_ranks) {
  std::map<std::pair<std::string, std::string>, TensorRecord> tensors;
  for (const auto& text : of_ranks) {
    for (const auto& item : json::parse(text)) {
      TensorRecord record{item.at(0), item.at(1), item.at(2), 0, {}};
      auto& whole = tensors.try_emplace({record.group, record.name}, record).first->second;
      ensure(whole.shape == record.shape, "ranks give different shapes to one tensor");
      for (const auto& p : item.at(3)) whole.pieces.push_back({p.at(0), p.at(1), p.at(2)});
    }
  }
  std::vector<TensorRecord> out;
  for (auto& [key, tensor] : tensors) {
    std::sort(tensor.pieces.begin(), tensor.pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    std::int64_t at = 0;
    for (const auto& piece : tensor.pieces) {
      ensure(piece.begin == at, "ranks' slabs of a tensor overlap or leave a gap");
      at = piece.end;
    }
    ensure(at == tensor.elements() && at > 0, "ranks' slabs do not cover a tensor");
    out.push_back(std::move(tensor));
  }
  return out;
}

// Returns the root's list of tensors on every rank. Only the root's copy has checksums.
Manifest plan(const comm::Communicator& comm, const std::vector<Slab>& slabs, const State& state) {
  Manifest manifest;
  manifest.update = state.update;
  manifest.ranks = comm.size();
  manifest.build = build_info();
  manifest.state_xxh3 = state_checksum(state);
  std::string mine;
  comm::agree(comm, "listing what to save", [&] { mine = describe_mine(slabs, comm.is_root()); });
  const auto of_ranks = comm.all_gather(mine);
  std::string names;
  comm::agree(comm, "listing what to save", [&] {
    if (!comm.is_root()) return;
    manifest.tensors = merge(of_ranks);
    json list = json::array();
    for (const auto& t : manifest.tensors) list.push_back({t.group, t.name, t.shape});
    names = list.dump();
  });
  comm.broadcast(names);
  if (!comm.is_root()) {
    for (const auto& item : json::parse(names)) manifest.tensors.push_back({item.at(0), item.at(1), item.at(2), 0, {}});
  }
  return manifest;
}

// Root only: makes an empty temporary folder and checks that the file system has room for the checkpoint.
void make_room(const fs::path& temporary, std::uint64_t wanted_bytes) {
  std::error_code ec;
  fs::create_directories(temporary.parent_path(), ec);
  clear_leftovers(temporary.parent_path());
  fs::create_directory(temporary, ec);
  if (ec) {
    throw Error(ExitCode::file, fmt::format("cannot create {}: {}", temporary.string(), ec.message()),
                "check that log.run_dir can be written by this user");
  }
  struct statvfs info {};
  if (statvfs(temporary.c_str(), &info) != 0 || info.f_blocks == 0) return;  // the file system cannot tell
  const std::uint64_t available = static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
  if (available < wanted_bytes) {
    throw Error(ExitCode::file,
                fmt::format("no space left for a checkpoint in {}: {} bytes are free, {} are needed",
                            temporary.parent_path().string(), available, wanted_bytes),
                "free space, lower checkpoint.keep_last, or move log.run_dir to a larger file system");
  }
}

// Shares the tensors' offsets in the file. Only the root has laid out the file.
void share_offsets(const comm::Communicator& comm, Manifest& manifest) {
  std::vector<std::uint64_t> offsets;
  for (const auto& t : manifest.tensors) offsets.push_back(t.offset_bytes);
  comm.broadcast(offsets.data(), offsets.size() * sizeof offsets[0]);
  for (std::size_t i = 0; i < offsets.size(); ++i) manifest.tensors[i].offset_bytes = offsets[i];
}

// Writes this rank's slabs at the offsets that HDF5 laid out, and syncs. Every rank must sync, since fsync writes only
// the pages of its own node.
void write_slabs(const std::string& path, const Manifest& manifest, const std::vector<Slab>& slabs) {
  const RawFile file(path, RawFile::Access::write);
  for (const auto& slab : slabs) {
    const auto* tensor = manifest.find(slab.group, slab.name);
    ensure(tensor != nullptr, "a slab of a tensor that is not in the manifest");
    file.write(tensor->offset_bytes + static_cast<std::uint64_t>(slab.begin) * sizeof(float), slab.data,
               static_cast<std::uint64_t>(slab.end - slab.begin) * sizeof(float));
  }
  file.sync();
}

}  // namespace

std::string save(const comm::Communicator& comm, const std::string& run_dir, const std::vector<Slab>& slabs,
                 const State& given) {
  State state = given;
  share(comm, state);
  const auto parent = checkpoints_folder(run_dir);
  const auto final_path = parent / folder_name(state.update);
  const auto temporary = parent / (".tmp-" + folder_name(state.update));
  const std::string path = temporary / "state.h5";
  try {
    auto manifest = plan(comm, slabs, state);
    comm::agree(comm, "creating the checkpoint", [&] {
      if (!comm.is_root()) return;
      const Skeleton skeleton(manifest, state);
      make_room(temporary, manifest.file_bytes);
      skeleton.copy_to(path);
    });
    share_offsets(comm, manifest);
    comm::agree(comm, "writing the checkpoint", [&] { write_slabs(path, manifest, slabs); });
    comm::agree(comm, "completing the checkpoint", [&] {
      if (!comm.is_root()) return;
      std::error_code ec;
      if (const auto bytes = fs::file_size(path, ec); ec || bytes != manifest.file_bytes) {
        throw Error(ExitCode::file,
                    fmt::format("{} was laid out with {} bytes and now {}", path, manifest.file_bytes,
                                ec ? ec.message() : fmt::format("has {}", bytes)),
                    "does something else work in log.run_dir?");
      }
      manifest.outside_xxh3 = outside_checksum(path, manifest);
      write_text(temporary / "manifest.json", to_json(manifest));
      commit_folder(temporary, final_path);
    });
  } catch (...) {
    std::error_code ec;
    if (comm.is_root()) fs::remove_all(temporary, ec);
    throw;
  }
  return final_path;
}

}  // namespace seer::checkpoint
