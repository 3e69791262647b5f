// SPDX-License-Identifier: Apache-2.0
// Imports weights from PyTorch and exports them: safetensors files with the names of torchvision, VISSL and others
// (method.md 1.4).
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
  std::vector<std::string> ignored;              ///< the file's tensors that were not imported (except counters)
  std::map<std::string, std::int64_t> prefixes;  ///< wrapper prefix that was removed -> number of names
};

/// Imports a safetensors file. `model` gives the trunk; if it is not set, the metadata of a file exported by seer do.
/// Head and prototypes are inferred if present. With a `prefix`, takes only names that begin with it and removes it.
/// Error(file) if names or shapes differ from the architecture: gives the first mismatch with both shapes, missing and
/// unexpected names, and unknown names with the nearest known ones.
Import import_safetensors(const std::string& path, const std::optional<config::Model>& model, Naming naming,
                          const std::string& prefix = "");

/// Writes all tensors as F32, and a num_batches_tracked (0) for each running_var, so that load_state_dict(strict=True)
/// accepts the file. Architecture and `about` become metadata. VISSL's names leave out the classifier. Error(file).
void export_safetensors(const std::string& path, const Weights& weights, Naming naming);

/// Python lines that load the trunk of an exported file with torchvision's names into torchvision's RegNet.
std::string python_lines(const std::string& path, const Weights& weights);

}  // namespace seer::weights
