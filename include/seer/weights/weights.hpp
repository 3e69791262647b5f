// SPDX-License-Identifier: Apache-2.0
// Weights files (the /model and /buffers part of a checkpoint), and their exchange with PyTorch as safetensors.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"
#include "seer/config/config.hpp"

namespace seer::weights {

struct HostTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// Whole tensors by torchvision's name, in memory: for import, export, evaluation.
struct Weights {
  config::Model model;                           ///< architecture: preset or the five numbers, and width rule
  config::Head head;                             ///< dims empty: trunk only; prototypes 0: none
  std::map<std::string, HostTensor> parameters;  ///< "/model"
  std::map<std::string, HostTensor> buffers;     ///< "/buffers": running_mean, running_var
  std::map<std::string, HostTensor>
      classifier;  ///< "/classifier": fc.weight and fc.bias of an imported net, for export
  /// What else is known of it, by the names of kAbout.
  std::map<std::string, std::string> about;
};

/// mean, std: what pixels in [0, 1] were normalised with, as JSON like crop_sizes and classes (of the training set);
/// shards and source: where images and weights came from.
inline constexpr const char* kAbout[] = {"mean", "std", "crop_sizes", "classes", "shards", "source"};

/// From a weights file or a checkpoint folder (or its state.h5). A checkpoint folder's checksums are verified first,
/// and all tensors of the architecture are there with its shapes. Error(file) with the first problem.
Weights read_weights(const std::string& path);
/// What architecture a file holds, without its tensors.
Weights read_architecture(const std::string& path);
/// Through a temporary file beside `path`, synced and renamed. Error(file).
void write_weights(const std::string& path, const Weights& weights);

/// Of parameters and buffers by our names.
using Shapes = std::map<std::string, std::vector<std::int64_t>>;
/// Head and prototypes from the tensors there are; dims become empty where there is no head, prototypes 0 where there
/// are none. Error(file) where the layers do not follow each other.
void infer_head(const Shapes& shapes, const std::string& path, config::Head& head);
/// Holds tensors' names and shapes against the architecture: "" or one text with the first mismatch (both shapes), the
/// missing and the unexpected names.
std::string compare_with_architecture(const Shapes& shapes, const config::Model& model, const config::Head& head);

}  // namespace seer::weights
