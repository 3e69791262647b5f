// SPDX-License-Identifier: Apache-2.0
// The names that other libraries give to our tensors (method.md 1.4). Our names: torchvision's for the trunk,
// head.<i>.weight|bias and head.<i>.norm.* for the head (i counts the linear layers), and prototypes.weight.
#pragma once

#include <string>
#include <vector>

namespace seer::weights {

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

}  // namespace seer::weights
