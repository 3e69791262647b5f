// SPDX-License-Identifier: Apache-2.0
// Checkpoints (file format in docs/formats.md): names, shapes and ranges of tensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::checkpoint {

/// A named tensor of a flat block, in row-major order, of which this rank writes (or reads) [begin, end).
/// Over all ranks the ranges must cover [0, product of shape) exactly once on save.
struct Slab {
  std::string group;  ///< "model", "momentum" or "buffers"
  std::string name;   ///< torchvision's name
  std::vector<std::int64_t> shape;
  float* data = nullptr;  ///< of element `begin`
  std::int64_t begin = 0, end = 0;
};

/// What tells a shard of the data set from another of its name.
struct Shard {
  std::string name;
  std::int64_t bytes = 0, images = 0;
  bool operator==(const Shard&) const = default;
};

/// What a training method keeps beside the parameters, by name (docs/formats.md). A name is not one of State's own.
struct NamedState {
  struct Tensor {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, std::int64_t> numbers;
  std::map<std::string, Tensor> tensors;
};

/// Everything else a run needs to go on; equal on all ranks.
struct State {
  std::int64_t update = 0;  ///< completed updates
  std::int64_t images_seen = 0;
  double loss_scale = 1;
  std::int64_t loss_scale_clean = -1;  ///< updates since it was changed last; negative: the run scales no loss
  std::int64_t seed = 0;
  std::int64_t global_batch = 0;
  std::int64_t ranks = 0;
  std::vector<Shard> shards;      ///< of the data set, in order
  std::vector<double> plateau;    ///< schedule's own state
  std::vector<double> kept_rate;  ///< update and rate at which the length was changed (train::KeptRate); else empty
  NamedState method;              ///< of the training method
  std::vector<double> guard;      ///< of the guard; empty while there is nothing to remember
  std::string config_toml;
};

/// Collective: writes run_dir/checkpoints/update-<8 digits>/{state.h5,manifest.json} through a temporary folder,
/// syncs, renames. Returns the folder. On failure every rank throws the same Error(file); earlier checkpoints are
/// untouched and the temporary folder is removed.
std::string save(const comm::Communicator& comm, const std::string& run_dir, const std::vector<Slab>& slabs,
                 const State& state);

/// Newest folder whose manifest is complete (all files there, sizes right), or nothing: the cheap look, no data is
/// read, and nothing is touched (a run may be writing there). Folders that look like checkpoints and are not are named
/// in a warning. Serial.
std::optional<std::string> find_latest(const std::string& run_dir);

/// What `path` means to a reader of weights: of a run folder its newest complete checkpoint, anything else as it is.
/// Serial. Error(file) for a run folder without a complete checkpoint.
std::string resolve(const std::string& path);

/// Newest checkpoint whose every byte agrees with its manifest, checked by all ranks in parallel: what a run resumes
/// from. Damaged and incomplete ones are named in a warning and the one before is tried. Nothing if there is none;
/// Error(file) if there are some and all are damaged (starting afresh beside them would be a silent loss).
std::optional<std::string> find_valid(const comm::Communicator& comm, const std::string& run_dir);

/// Serial: reads every byte of a checkpoint folder; "" or its first problem.
std::string verify(const std::string& folder);

/// Collective: reads a checkpoint that has just been saved back against its manifest, each rank the part that a rank of
/// another node wrote where there are several nodes (on one, the page cache answers). One that is not what was written
/// is removed, and every rank throws the same Error(file).
void verify_or_discard(const comm::Communicator& comm, const std::string& folder);

/// Collective: fills the slabs (matched by group and name; a shape mismatch or a missing name is Error(file) naming the
/// first and both shapes; tensors of the file that nobody asks for are left alone) and returns the state. All ranks
/// together verify the whole checkpoint first, each a share, unless `verified` says that find_valid has just done so.
State load(const comm::Communicator& comm, const std::string& folder, const std::vector<Slab>& slabs,
           bool verified = false);

/// Moves checkpoints of more than `update` updates to run_dir/checkpoints.old-<n>, with the file `record` of the run
/// folder where one is named: a run that goes on from an earlier one will come by their numbers again. Where
/// checkpoints/ is a link or a mount they go to a folder in there, to which run_dir/checkpoints.old-<n> is a link.
/// Returns the folder,
/// "" if there was nothing to move. All or nothing: Error(file) leaves the run folder as it was. Root only.
std::string set_aside_newer(const std::string& run_dir, std::int64_t update, const std::string& record = "");

/// Deletes all but the newest `keep_last` (at least one is kept) and every multiple of `keep_every` updates (0: none).
/// Only complete checkpoints are counted, or deleted. What cannot be deleted is a warning. Root only.
void retain(const std::string& run_dir, std::int64_t keep_last, std::int64_t keep_every);

/// Writes and reads back a small checkpoint under run_dir before the first update is spent: a full disk, a read-only
/// folder or one that nodes do not share shows at once. Collective, Error(file).
void rehearse(const comm::Communicator& comm, const std::string& run_dir);

}  // namespace seer::checkpoint
