// SPDX-License-Identifier: Apache-2.0
// Imports weights from PyTorch and exports them: safetensors files with the names of torchvision, VISSL and others
// (method.md 1.4). Our names: torchvision's for the trunk, head.<i>.weight|bias and head.<i>.norm.* for the head (i
// counts the linear layers), and prototypes.weight.
//
// The safetensors format: the length of the header (8 bytes, little-endian), a JSON header with every tensor's type,
// shape and place, then the data. Files are treated as hostile: every length is checked before any allocation.
#pragma once

#include <optional>

#include "seer/weights/weights.hpp"

namespace seer::weights {

class SafetensorsFile {
 public:
  struct Entry {
    std::string type;  ///< as in the file: "F32", "BF16", "I64" ...
    std::vector<std::int64_t> shape;
    std::uint64_t begin = 0, end = 0;  ///< bytes, from the start of the data
  };

  /// Reads and checks the header. Error(file).
  explicit SafetensorsFile(const std::string& path);
  const std::map<std::string, Entry>& entries() const { return entries_; }
  /// The header's __metadata__: texts by name. Values that are not text are left out.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Reads F32, F16, BF16 and F64 as float; any other type is Error(file).
  HostTensor read(const std::string& name) const;

 private:
  std::string path_;
  std::uint64_t data_offset_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// A tensor to write: float32 values, or a 64-bit integer without dimensions if `values` is null.
struct SafetensorsItem {
  std::vector<std::int64_t> shape;
  const float* values = nullptr;
  std::int64_t integer = 0;
};

/// Writes a temporary file next to `path`, syncs it and renames it. Error(file).
void write_safetensors(const std::string& path, const std::map<std::string, SafetensorsItem>& items,
                       const std::map<std::string, std::string>& metadata);

/// automatic: on import, accepts names of VISSL, ClassyVision, torchvision, timm, pycls and transformers.
enum class Naming { automatic, torchvision, vissl };

/// "auto", "torchvision" or "vissl"; Error(input) otherwise.
Naming parse_naming(const std::string& text);

/// Removes the name levels that wrappers add: leading module., model., backbone., encoder., trunk. ... in any order;
/// anywhere torch.compile's _orig_mod, FSDP's _fsdp_wrapped_module and _fpw_module, VISSL's block<s>-part<p>.
std::string strip_wrappers(const std::string& name);
/// The leading levels that strip_wrappers removes, for example "module.backbone."; "" if there are none.
std::string wrapper_prefix(const std::string& name);

/// Number of positions per linear layer in VISSL's projection_head, found from all names of a file: 2 (linear, ReLU) or
/// 3 (linear, BatchNorm, ReLU).
int projection_head_stride(const std::vector<std::string>& names);

/// Our name for a foreign tensor. Unknown names are returned without wrappers, so that the caller can compare them with
/// the expected names. With Naming::torchvision, removes only wrappers.
std::string our_name(const std::string& foreign, Naming naming, int head_stride);

/// The inverse, for export. `full_model`: add VISSL's leading "trunk.", because the file also holds a head. Otherwise
/// the trunk's names are those inside VISSL's trunk dictionary.
std::string foreign_name(const std::string& ours, Naming naming, int head_stride, bool full_model);

/// What a file of weights is: ours, safetensors, or another tool's.
struct Container {
  enum class Kind { unknown, ours, safetensors, foreign } kind = Kind::unknown;
  std::string what;    ///< for example "a checkpoint of PyTorch (zip)"
  std::string remedy;  ///< the lines or the command that convert it
};

/// Decides by the first and last bytes of a file, or by the contents of a folder. unknown: also if it cannot be read.
Container container_of(const std::string& path);

/// Error(file) if `path` is certainly not a weights file or checkpoint of ours.
void require_weights(const std::string& path);

/// For example "seer import photos.safetensors photos.h5 --preset 400mf", with the options that the file reveals.
std::string import_command(const std::string& path);

/// A word of a command line, quoted if the shell would change it.
std::string shell_word(const std::string& word);

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
/// accepts the file. Architecture and `about` become metadata. VISSL's names leave out the classifier. What else a run
/// has keeps our names, after "method.", "momentum." or "teacher."; import_safetensors() reads it back. Error(file).
void export_safetensors(const std::string& path, const Weights& weights, Naming naming);

/// Python lines that load the trunk of an exported file with torchvision's names into torchvision's RegNet.
std::string python_lines(const std::string& path, const Weights& weights);

}  // namespace seer::weights
