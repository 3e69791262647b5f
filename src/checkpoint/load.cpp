// SPDX-License-Identifier: Apache-2.0
// Finds, verifies and loads checkpoints. An HDF5 file whose writer died may still open. So all checks use the manifest,
// and HDF5 opens a file only after its checksums have been verified.
#include <fmt/format.h>

#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/checkpoint/folders.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/h5/file.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// Returns the manifest on every rank. Only the root reads it: a thousand ranks would overload the file system.
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

// Returns the first problem that any rank finds in its share; the same on all ranks. Rank r reads share r + shift,
// which rank r + shift (about) has written.
std::string verify_together(const comm::Communicator& comm, const std::string& folder, const Manifest& manifest,
                            int shift = 0) {
  const int part = (comm.rank() + shift) % comm.size();
  for (const auto& problem : comm.all_gather(verify_share(folder, manifest, part, comm.size()))) {
    if (!problem.empty()) return problem;
  }
  return "";
}

// Root only: reads the values of /state and checks them against the manifest.
State verified_state(const std::string& folder, const Manifest& manifest) {
  const std::string path = folder + "/state.h5";
  auto state = read_state(h5::File::open(path));
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

// Checks a folder against its manifest. Returns "" or the problem.
std::string look(const std::string& folder) {
  try {
    read_manifest(folder);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

void warn_skipped(const std::string& folder, const std::string& problem) {
  log::warn(fmt::format("checkpoint {} is not used: {}; trying the one before it", folder, problem));
}

}  // namespace

std::optional<std::string> find_latest(const std::string& run_dir) {
  for (const auto& folder : list_folders(run_dir)) {
    const auto problem = look(folder);
    if (problem.empty()) return folder;
    warn_skipped(folder, problem);
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
  std::vector<std::string> candidates;  // newest first; on the root only
  std::int64_t left = 0;
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
    if (comm.is_root()) problem = look(folder);
    comm.broadcast(problem);
    if (problem.empty()) {
      try {
        problem = verify_together(comm, folder, share_manifest(comm, folder));
      } catch (const Error& e) {
        if (!e.agreed()) throw;
        problem = e.what();
      }
    }
    if (problem.empty()) return folder;
    if (comm.is_root()) warn_skipped(folder, problem);
  }
  // A folder gets this name only when it is complete, so a folder without a manifest is damaged too.
  if (left > 0) {
    throw Error(ExitCode::file,
                fmt::format("none of the {} checkpoints in {} can be used; the reasons are named above", left,
                            checkpoints_folder(run_dir).string()),
                "move them away, or start a new run with --resume never")
        .as_agreed();
  }
  return std::nullopt;
}

void verify_or_discard(const comm::Communicator& comm, const std::string& folder) {
  std::string problem;
  try {
    problem = verify_together(comm, folder, share_manifest(comm, folder), comm.size() / 2);
  } catch (const Error& e) {
    if (!e.agreed()) throw;
    problem = e.what();
  }
  if (problem.empty()) return;
  if (comm.is_root()) discard(folder);
  throw Error(ExitCode::file, "a checkpoint reads back differently: " + problem,
              "the file system or the memory of a node cannot be trusted")
      .as_agreed();
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
