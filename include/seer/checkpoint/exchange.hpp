// SPDX-License-Identifier: Apache-2.0
// Weights from and to PyTorch: safetensors files with torchvision's or VISSL's names (spec 1.4).
#pragma once

#include <string>
#include <vector>

#include "seer/checkpoint/names.hpp"
#include "seer/checkpoint/weights.hpp"

namespace seer::checkpoint {

struct Import {
  Weights weights;
  std::vector<std::string> ignored;  ///< names of the file that were left out (counters aside)
};

/// Trunk as `model` says; head and prototypes inferred where present. Error(file) where names or shapes are not the
/// architecture's: the first mismatch with both shapes, missing and unexpected names.
Import import_safetensors(const std::string& path, const config::Model& model, Naming naming);

/// All tensors as F32, and a num_batches_tracked (0) beside each running_var, so that load_state_dict(strict=True)
/// accepts it. With VISSL's names a classifier is left out. Error(file).
void export_safetensors(const std::string& path, const Weights& weights, Naming naming);

}  // namespace seer::checkpoint
