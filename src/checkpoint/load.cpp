// SPDX-License-Identifier: Apache-2.0
// Finds, verifies and loads checkpoints. An HDF5 file whose writer died may still open. So all checks use the manifest,
// and HDF5 opens a file only after its checksums have been verified.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/random.hpp"
#include "seer/checkpoint/manifest.hpp"
#include "seer/checkpoint/raw.hpp"
#include "state.hpp"

namespace seer::checkpoint {
namespace fs = std::filesystem;
namespace {

/// Reads the manifest on every rank and, if `bytes`, verifies the checkpoint's bytes together: rank r reads share
/// r + shift, which rank r + shift (about) has written. Returns "" or the first problem, the same on all ranks. Only
/// the root reads the file of the manifest: a thousand ranks would overload the file system.
std::string verify_together(const comm::Communicator& comm, const std::string& folder, Manifest& manifest,
                            int shift = 0, bool bytes = true) {
  std::string text, problem;
  if (comm.is_root()) problem = problem_of([&] { text = to_json(read_manifest(folder)); });
  comm.broadcast(problem);
  comm.broadcast(text);
  if (!problem.empty()) return problem;
  manifest = parse_manifest(text, folder + "/manifest.json");
  if (!bytes) return "";
  const int part = (comm.rank() + shift) % comm.size();
  const auto problems = comm.all_gather(problem_of([&] { verify_share(folder, manifest, part, comm.size()); }));
  const auto first = std::ranges::find_if(problems, [](const auto& found) { return !found.empty(); });
  return first == problems.end() ? "" : *first;
}

/// Root only: reads the values of /state and checks them against the manifest.
State verified_state(const std::string& folder, const Manifest& manifest) {
  const std::string path = folder + "/state.h5";
  auto state = read_state(h5::File::open(path));
  if (state_checksum(state) != manifest.state_xxh3 || state.update != manifest.update)
    throw Error(ExitCode::file, fmt::format("{}: the values in /state differ from the manifest", path));
  return state;
}

void read_slab(const RawFile& file, const std::string& folder, const Manifest& manifest, const Slab& slab) {
  const auto* tensor = manifest.find(slab.group, slab.name);
  if (tensor == nullptr || tensor->shape != slab.shape)
    throw Error(ExitCode::file,
                fmt::format("{}: /{}/{} {}, wanted shape {}", folder, slab.group, slab.name,
                            tensor == nullptr ? "is missing" : "has shape " + shape_text(tensor->shape),
                            shape_text(slab.shape)),
                slab.group.starts_with("teacher") && tensor == nullptr
                    ? "set finetune.ema and method.kind as they were: a run that begins with averaged weights or a "
                      "teacher cannot go on from a checkpoint without them"
                    : "was the checkpoint written with another [model] or [head]?");
  ensure(slab.begin >= 0 && slab.begin <= slab.end && slab.end <= tensor->elements(), "a slab lies outside its tensor");
  file.read(tensor->offset_bytes + static_cast<std::uint64_t>(slab.begin) * sizeof(float), slab.data,
            static_cast<std::uint64_t>(slab.end - slab.begin) * sizeof(float));
}

void warn_skipped(const std::string& folder, const std::string& problem) {
  log::warn(fmt::format("checkpoint {} is not used: {}; trying the one before it", folder, problem));
}

/// Collective. Copies the root's state to every rank, bit for bit.
void share(const comm::Communicator& comm, State& state) {
  auto packed = comm.is_root() ? pack(state) : "";
  comm.broadcast(packed);
  if (!comm.is_root()) unpack(packed, state);
  for (auto& [name, tensor] : state.method.tensors)
    comm.broadcast(tensor.values.data(), tensor.values.size() * sizeof(float));
}

/// A different row for every rank, so that mixed-up places in the file are noticed.
std::vector<float> row_of(int rank) {
  constexpr std::size_t kRow = 4099;
  Random random(0, Purpose::rehearsal, static_cast<std::uint64_t>(rank));
  std::vector<float> row(kRow);
  for (auto& value : row) value = static_cast<float>(random.uniform(-1, 1));
  return row;
}

}  // namespace

std::optional<std::string> find_latest(const std::string& run_dir) {
  for (const auto& [update, folder] : list_folders(run_dir)) {
    const auto problem = problem_of([&folder = folder] { read_manifest(folder); });
    if (problem.empty()) return folder;
    warn_skipped(folder, problem);
  }
  return std::nullopt;
}

std::string resolve(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(checkpoints_folder(path), error)) return path;
  if (auto latest = find_latest(path)) return *std::move(latest);
  throw Error(ExitCode::file, fmt::format("{} is a run folder without a complete checkpoint", path),
              "let the run reach its first checkpoint, or name a weights file");
}

std::optional<std::string> find_valid(const comm::Communicator& comm, const std::string& run_dir) {
  Folders candidates;  // on the root only
  comm::agree(comm, "looking for checkpoints", [&] {
    if (!comm.is_root()) return;
    clear_leftovers(checkpoints_folder(run_dir));
    candidates = list_folders(run_dir);
  });
  auto count = static_cast<std::int64_t>(candidates.size());
  comm.broadcast(&count, sizeof count);
  for (std::int64_t i = 0; i < count; ++i) {
    std::string folder = comm.is_root() ? candidates[static_cast<std::size_t>(i)].second : "";
    comm.broadcast(folder);
    Manifest manifest;
    const auto problem = verify_together(comm, folder, manifest);
    if (problem.empty()) return folder;
    if (comm.is_root()) warn_skipped(folder, problem);
  }
  // A folder gets this name only when it is complete, so a folder without a manifest is damaged too.
  if (count > 0)
    throw Error(ExitCode::file,
                fmt::format("no checkpoint in {} can be used: all {} are damaged or incomplete; the warnings above "
                            "give the reasons",
                            checkpoints_folder(run_dir).string(), count),
                "move them away, or start a new run with --resume never")
        .as_agreed();
  return std::nullopt;
}

void verify_or_discard(const comm::Communicator& comm, const std::string& folder) {
  Manifest manifest;
  const auto problem = verify_together(comm, folder, manifest, comm.size() / 2);
  if (problem.empty()) return;
  if (comm.is_root()) discard(folder);
  throw Error(ExitCode::file, "a checkpoint reads back differently: " + problem,
              "the file system or the memory of a node cannot be trusted")
      .as_agreed();
}

std::string verify(const std::string& folder) {
  return problem_of([&] {
    const auto manifest = read_manifest(folder);
    verify_share(folder, manifest, 0, 1);
    verified_state(folder, manifest);
  });
}

State load(const comm::Communicator& comm, const std::string& folder, const std::vector<Slab>& slabs, bool verified) {
  Manifest manifest;
  const auto problem = verify_together(comm, folder, manifest, 0, !verified);
  if (!problem.empty())
    throw Error(ExitCode::file, "this checkpoint cannot be used: " + problem,
                "name another one; --resume auto finds the newest that is whole")
        .as_agreed();
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

void rehearse(const comm::Communicator& comm, const std::string& run_dir) {
  // If checkpoints/ is a link, rehearse where it leads.
  const auto home = checkpoints_folder(run_dir);
  const fs::path scratch = (fs::is_symlink(home) ? home : fs::path(run_dir)) / ".rehearsal";
  const auto remove = [&] {
    std::error_code ec;
    if (comm.is_root()) fs::remove_all(scratch, ec);
  };
  auto written = row_of(comm.rank());
  const auto n = static_cast<std::int64_t>(written.size());
  const auto slab = [&](std::vector<float>& row, int place) {
    return std::vector<Slab>{{"model", "rehearsal", {comm.size(), n}, row.data(), place * n, (place + 1) * n}};
  };
  State state;
  state.update = 1;
  state.ranks = comm.size();
  state.method.tensors["rehearsal"] = {{n}, row_of(-1)};
  try {
    const auto folder = save(comm, scratch, slab(written, comm.rank()), state);
    // Each rank reads what its neighbour wrote, since its own data might come from its own cache.
    const int neighbour = (comm.rank() + 1) % comm.size();
    std::vector<float> read(written.size());
    const auto found = load(comm, folder, slab(read, neighbour));
    comm::agree(comm, "checking the rehearsal of a checkpoint", [&] {
      if (read != row_of(neighbour) || tensor_values(found) != tensor_values(state))
        throw Error(ExitCode::file, fmt::format("a checkpoint written under {} reads back differently", run_dir),
                    "this file system does not show one node what another has written: try another log.run_dir");
    });
  } catch (const Error& e) {
    remove();
    const Error failure(e.code(), fmt::format("rehearsal of a checkpoint failed: {}", e.what()), e.remedy());
    throw e.agreed() ? failure.at(e.where()).as_agreed() : failure.at(e.where());
  }
  remove();
  comm.barrier();
}

}  // namespace seer::checkpoint
