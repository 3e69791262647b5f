// SPDX-License-Identifier: Apache-2.0
// Weights files (the /model and /buffers part of a checkpoint).
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "seer/config/config.hpp"

namespace seer::weights {

struct HostTensor {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// Whole tensors in memory, by torchvision's names, for import, export and evaluation.
struct Weights {
  config::Model model;                           ///< architecture: preset or the five numbers, and width rule
  config::Head head;                             ///< empty dims: trunk only; 0 prototypes: none
  std::map<std::string, HostTensor> parameters;  ///< "/model"
  std::map<std::string, HostTensor> buffers;     ///< "/buffers": running_mean, running_var
  std::map<std::string, HostTensor> classifier;  ///< "/classifier": fc.weight and fc.bias of an imported net
  // What else a run has, by the same names; empty unless read_weights() was asked for it.
  std::map<std::string, HostTensor> method;    ///< "/method": parameters and buffers of heads that only the method uses
  std::map<std::string, HostTensor> momentum;  ///< "/momentum": the optimizer's, of parameters and those heads
  std::map<std::string, HostTensor> teacher;   ///< "/teacher": parameters and buffers
  /// What else is known about the weights, by the names of kAbout.
  std::map<std::string, std::string> about;
};

/// mean, std: normalisation of pixels in [0, 1]. These two, crop_sizes and classes (of the training set) are JSON.
/// shards, source: where the images and the weights came from. optimizer: the kind that the momenta belong to.
inline constexpr const char* kAbout[] = {"mean", "std", "crop_sizes", "classes", "shards", "source", "optimizer"};

/// The parts of a run beside the weights.
struct Extras {
  bool method = false, momentum = false, teacher = false;
};
/// Calls visit(name, member of Weights, member of Extras) for each of them.
void visit_extras(const auto& visit) {
  visit("method", &Weights::method, &Extras::method);
  visit("momentum", &Weights::momentum, &Extras::momentum);
  visit("teacher", &Weights::teacher, &Extras::teacher);
}

/// Reads a weights file or a checkpoint folder (or its state.h5). Verifies a checkpoint folder's checksums first.
/// Checks that the tensors have the names and shapes of the architecture. Error(file) with the first problem. `extras`:
/// what else to read, where it is there.
Weights read_weights(const std::string& path, const Extras& extras = {});
/// The same without any tensor: model, head and about. Reads only names and attributes, and verifies nothing.
Weights describe_weights(const std::string& path);
/// The form of about["classes"].
std::string classes_text(const std::vector<std::string>& classes);
/// Writes a temporary file next to `path`, syncs it and renames it. Error(file).
void write_weights(const std::string& path, const Weights& weights);

/// Shapes of parameters and buffers by our names.
using Shapes = std::map<std::string, std::vector<std::int64_t>>;
/// Infers head and prototypes from the tensors. Without a head dims become empty; without prototypes their number
/// becomes 0. Error(file) if the width of a layer does not match that of the next.
void infer_head(const Shapes& shapes, const std::string& path, config::Head& head);
/// Error(file) if this version has no such trunk, which is the one that `path` names.
void require_known(const config::Model& model, const std::string& path);

/// Compares the tensors' names and shapes with the architecture. Returns "" or one text with the first mismatch (both
/// shapes) and the missing and unexpected names.
std::string compare_with_architecture(const Shapes& shapes, const config::Model& model, const config::Head& head);

}  // namespace seer::weights
