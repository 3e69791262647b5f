// SPDX-License-Identifier: Apache-2.0
// Saves, finds, verifies and loads checkpoints (file format in docs/formats.md). Tensors are known here only by name,
// shape and range.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/data/source.hpp"

namespace seer::checkpoint {

/// A named tensor in row-major order. This rank writes (or reads) its elements [begin, end).
/// When saving, the ranges of all ranks must cover [0, product of shape) exactly once.
struct Slab {
  std::string group;  ///< "model", "momentum", "buffers"; with a teacher also "teacher", "teacher_buffers"
  std::string name;   ///< torchvision's name
  std::vector<std::int64_t> shape;
  float* data = nullptr;  ///< address of element `begin`
  std::int64_t begin = 0, end = 0;
};

/// State that a training method keeps in addition to the parameters, by name (docs/formats.md). Names must differ from
/// those of State's own members.
struct NamedState {
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, std::int64_t> numbers;
  std::map<std::string, Tensor> tensors;
};

/// Everything else that a run needs to continue; equal on all ranks.
struct State {
  std::int64_t update = 0;  ///< completed updates
  std::int64_t images_seen = 0;
  double loss_scale = 1;
  std::int64_t loss_scale_clean = -1;  ///< updates since the loss scale last changed; negative: no loss scaling
  std::int64_t seed = 0;
  std::int64_t global_batch = 0;
  std::int64_t ranks = 0;
  std::vector<data::ShardIdentity> shards;  ///< shards of the data set, in order
  std::vector<std::string> classes;         ///< that a classifier learns, in the order of its rows; empty: unknown
  std::vector<double> plateau;              ///< state of the schedule
  std::vector<double> kept_rate;  ///< update and rate when the run's length was changed (train::KeptRate); else empty
  NamedState method;              ///< state of the training method
  std::vector<double> guard;      ///< state of the guard; empty if there is nothing to remember
  std::vector<double> watch;      ///< the best evaluation so far (run/evaluations.hpp); empty if there is none
  std::string config_toml;
};

/// Collective. Writes run_dir/checkpoints/update-<8 digits>/{state.h5,manifest.json} into a temporary folder, syncs and
/// renames it. Returns the folder. On failure every rank throws the same Error(file), earlier checkpoints are untouched
/// and the temporary folder is removed.
std::string save(const comm::Communicator& comm, const std::string& run_dir, const std::vector<Slab>& slabs,
                 const State& state);

/// Returns the newest folder whose manifest is complete (all files exist and have the right size), or nothing. This is
/// a cheap check: it reads no tensor data and changes nothing, since a run may be writing there. Warns of folders that
/// look like checkpoints but are not. Serial.
std::optional<std::string> find_latest(const std::string& run_dir);

/// Resolves a path given as the source of weights: a run folder becomes its newest complete checkpoint, any other path
/// is returned as it is. Serial. Error(file) for a run folder without a complete checkpoint.
std::string resolve(const std::string& path);

/// Collective. Returns the newest checkpoint whose bytes all match its manifest; a run resumes from it. All ranks check
/// in parallel. Warns of damaged and incomplete checkpoints and tries the next older one. Returns nothing if there are
/// no checkpoints; Error(file) if all of them are damaged (starting afresh beside them would be a silent loss).
std::optional<std::string> find_valid(const comm::Communicator& comm, const std::string& run_dir);

/// Reads every byte of a checkpoint folder. Returns "" or the first problem. Serial.
std::string verify(const std::string& folder);

/// Collective. Reads a just saved checkpoint back and compares it with its manifest. With several nodes, each rank
/// reads a part written on another node (on the same node the page cache would answer). If the checkpoint differs from
/// what was written, removes it, and every rank throws the same Error(file).
void verify_or_discard(const comm::Communicator& comm, const std::string& folder);

/// Collective. Fills the slabs, matched by group and name, and returns the state. A shape mismatch or a missing name is
/// Error(file), which names the first one and both shapes. Tensors of the file that match no slab are ignored. First
/// the ranks verify the whole checkpoint, each a share, unless `verified` says that find_valid has just done so.
State load(const comm::Communicator& comm, const std::string& folder, const std::vector<Slab>& slabs,
           bool verified = false);

/// Moves checkpoints of more than `update` updates to run_dir/checkpoints.old-<n>, together with the file `record` of
/// the run folder if it is not "". A run that continues from an earlier checkpoint will reach their numbers again. If
/// checkpoints/ is a link or a mount, they go to a folder inside it, and run_dir/checkpoints.old-<n> becomes a link to
/// that folder. Returns the folder, "" if there was nothing to move. All or nothing: Error(file) leaves the run folder
/// as it was. Root only.
std::string set_aside_newer(const std::string& run_dir, std::int64_t update, const std::string& record = "");

/// Deletes old checkpoints. Keeps the newest `keep_last` (at least one), every multiple of `keep_every` updates (0:
/// none), and that of `best` updates (negative: none). Counts and deletes only complete checkpoints. Warns if one
/// cannot be deleted. Root only.
void retain(const std::string& run_dir, std::int64_t keep_last, std::int64_t keep_every, std::int64_t best = -1);

/// Collective. Writes a small checkpoint under run_dir and reads it back, before the first update. So a full disk, a
/// read-only folder or one that the nodes do not share is found at once. Error(file).
void rehearse(const comm::Communicator& comm, const std::string& run_dir);

}  // namespace seer::checkpoint
