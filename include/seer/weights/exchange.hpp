// SPDX-License-Identifier: Apache-2.0
// Weights from and to PyTorch: safetensors files with torchvision's, VISSL's and others' names (method.md 1.4).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/weights/names.hpp"
#include "seer/weights/weights.hpp"

namespace seer::weights {

struct Import {
  Weights weights;
  std::vector<std::string> ignored;              ///< names of the file that were left out (counters aside)
  std::map<std::string, std::int64_t> prefixes;  ///< of wrappers, taken off the names: how many names
};

/// Trunk as `model` says, or as the file's metadata say where it is an export of ours; head and prototypes inferred
/// where present. Of a `prefix` only names that begin so are taken, without it. Error(file) where names or shapes are
/// not the architecture's: the first mismatch with both shapes, missing and unexpected names, what was not understood
/// with the nearest names.
Import import_safetensors(const std::string& path, const std::optional<config::Model>& model, Naming naming,
                          const std::string& prefix = "");

/// All tensors as F32, and a num_batches_tracked (0) beside each running_var, so that load_state_dict(strict=True)
/// accepts it; architecture and `about` as metadata. With VISSL's names a classifier is left out. Error(file).
void export_safetensors(const std::string& path, const Weights& weights, Naming naming);

/// The Python lines that load the trunk of such a file, with torchvision's names, into torchvision's RegNet.
std::string python_lines(const std::string& path, const Weights& weights);

}  // namespace seer::weights
