// SPDX-License-Identifier: Apache-2.0
// Finding, verifying and loading. "It opens" proves nothing about an HDF5 file whose writer died: everything goes by
// the manifest, and HDF5 sees a file only after its checksums were right.
#include <fmt/format.h>

#include <filesystem>

#include "folders.hpp"
#include "raw.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/data/h5.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The manifest on every rank. Its text is read once: a thousand ranks must not ask the file system for it.
Manifest share_manifest(const comm::Communicator& comm, const std::string& folder) {
  std::string text;
  comm::agree(comm, "reading the checkpoint's manifest", [&] {
    if (!comm.is_root()) return;
    read_manifest(folder);
    text = read_manifest_text(folder);
  });
  comm.broadcast(text);
  return parse_manifest(text, folder + "/manifest.json");
}

// First problem any rank finds in its share; the same on all ranks.
std::string verify_together(const comm::Communicator& comm, const std::string& folder, const Manifest& manifest) {
  for (const auto& problem : comm.all_gather(verify_share(folder, manifest, comm.rank(), comm.size()))) {
    if (!problem.empty()) return problem;
  }
  return "";
}

// Root: values of /state, held against the manifest.
State verified_state(const std::string& folder, const Manifest& manifest) {
  const std::string path = folder + "/state.h5";
  auto state = read_state(data::h5::File::open(path));
  if (state_checksum(state) != manifest.state_xxh3 || state.update != manifest.update) {
    throw Error(ExitCode::file, fmt::format("{}: /state is not what its manifest describes", path));
  }
  return state;
}

void read_slab(const RawFile& file, const std::string& folder, const Manifest& manifest, const Slab& slab) {
  const auto* tensor = manifest.find(slab.group, slab.name);
  if (tensor == nullptr) {
    throw Error(
        ExitCode::file,
        fmt::format("{} holds no /{}/{} (wanted with shape {})", folder, slab.group, slab.name, shape_text(slab.shape)),
        "was the checkpoint written with another [model] or [head]?");
  }
  if (tensor->shape != slab.shape) {
    throw Error(ExitCode::file,
                fmt::format("{}: /{}/{} has shape {}, wanted {}", folder, slab.group, slab.name,
                            shape_text(tensor->shape), shape_text(slab.shape)),
                "was the checkpoint written with another [model] or [head]?");
  }
  ensure(slab.begin >= 0 && slab.begin <= slab.end && slab.end <= tensor->elements(), "a slab lies outside its tensor");
  file.read(tensor->offset_bytes + static_cast<std::uint64_t>(slab.begin) * sizeof(float), slab.data,
            static_cast<std::uint64_t>(slab.end - slab.begin) * sizeof(float));
}

// What a look at the manifest finds wrong with a folder, "" if nothing; and whether it claims to be complete at all.
struct Look {
  std::string problem;
  bool has_manifest = false;
};
Look look(const std::string& folder) {
  Look out;
  std::error_code ec;
  out.has_manifest = fs::exists(fs::path(folder) / "manifest.json", ec);
  try {
    read_manifest(folder);
  } catch (const Error& e) {
    out.problem = e.what();
  }
  return out;
}

void warn_skipped(const std::string& folder, const std::string& problem) {
  log::warn(fmt::format("checkpoint {} is not used: {}; trying the one before it", folder, problem));
}

}  // namespace

std::optional<std::string> find_latest(const std::string& run_dir) {
  for (const auto& folder : list_folders(run_dir)) {
    const auto seen = look(folder);
    if (seen.problem.empty()) return folder;
    warn_skipped(folder, seen.problem);
  }
  return std::nullopt;
}

std::string resolve(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(checkpoints_folder(path), error)) return path;
  if (auto latest = find_latest(path)) return *std::move(latest);
  throw Error(ExitCode::file, fmt::format("{}: a run folder without a complete checkpoint", path),
              "let the run reach its first checkpoint, or name a weights file");
}

std::optional<std::string> find_valid(const comm::Communicator& comm, const std::string& run_dir) {
  std::vector<std::string> candidates;  // newest first; root's
  std::int64_t damaged = 0, left = 0;
  comm::agree(comm, "looking for checkpoints", [&] {
    if (!comm.is_root()) return;
    clear_leftovers(checkpoints_folder(run_dir));
    for (const auto& folder : list_folders(run_dir)) candidates.push_back(folder);
  });
  left = static_cast<std::int64_t>(candidates.size());
  comm.broadcast(&left, sizeof left);
  for (std::int64_t i = 0; i < left; ++i) {
    std::string folder = comm.is_root() ? candidates[static_cast<std::size_t>(i)] : "";
    comm.broadcast(folder);
    std::string problem;
    std::int64_t has_manifest = 0;
    if (comm.is_root()) {
      const auto seen = look(folder);
      problem = seen.problem;
      has_manifest = seen.has_manifest ? 1 : 0;
    }
    comm.broadcast(problem);
    comm.broadcast(&has_manifest, sizeof has_manifest);
    if (problem.empty()) {
      try {
        problem = verify_together(comm, folder, share_manifest(comm, folder));
      } catch (const Error& e) {
        problem = e.what();
      }
    }
    if (problem.empty()) return folder;
    damaged += has_manifest;
    if (comm.is_root()) warn_skipped(folder, problem);
  }
  if (damaged > 0) {
    throw Error(ExitCode::file,
                fmt::format("none of the {} checkpoints in {} can be used; the reasons are named above", damaged,
                            checkpoints_folder(run_dir).string()),
                "move them away, or start afresh with --resume never")
        .as_agreed();
  }
  return std::nullopt;
}

std::string verify(const std::string& folder) {
  try {
    const auto manifest = read_manifest(folder);
    auto problem = verify_share(folder, manifest, 0, 1);
    if (problem.empty()) verified_state(folder, manifest);
    return problem;
  } catch (const Error& e) {
    return e.what();
  }
}

State load(const comm::Communicator& comm, const std::string& folder, const std::vector<Slab>& slabs, bool verified) {
  const auto manifest = share_manifest(comm, folder);
  if (!verified) {
    const auto problem = verify_together(comm, folder, manifest);
    if (!problem.empty()) {
      throw Error(ExitCode::file, "damaged checkpoint: " + problem,
                  "use an earlier one; --resume auto finds the newest that is whole")
          .as_agreed();
    }
  }
  State state;
  comm::agree(comm, "reading the checkpoint's state", [&] {
    if (comm.is_root()) state = verified_state(folder, manifest);
  });
  share(comm, state);
  comm::agree(comm, "reading the checkpoint's tensors", [&] {
    const RawFile file(folder + "/state.h5");
    for (const auto& slab : slabs) read_slab(file, folder, manifest, slab);
  });
  return state;
}

}  // namespace seer::checkpoint
