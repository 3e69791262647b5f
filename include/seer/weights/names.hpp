// SPDX-License-Identifier: Apache-2.0
// Names of the same tensors elsewhere (method.md 1.4). Ours are torchvision's for the trunk, head.<i>.weight|bias and
// head.<i>.norm.* for the head (i counts the linear layers), prototypes.weight.
#pragma once

#include <string>
#include <vector>

namespace seer::weights {

/// automatic: on import, names of VISSL, ClassyVision, torchvision, timm, pycls and transformers side by side.
enum class Naming { automatic, torchvision, vissl };

/// "auto", "torchvision" or "vissl"; Error(input) otherwise.
Naming parse_naming(const std::string& text);

/// Without the levels that wrappers add: leading module., model., backbone., encoder., trunk. ... in any order;
/// anywhere torch.compile's _orig_mod, FSDP's _fsdp_wrapped_module and _fpw_module, VISSL's block<s>-part<p>.
std::string strip_wrappers(const std::string& name);
/// The leading levels that strip_wrappers takes off: "module.backbone."; "" where there are none.
std::string wrapper_prefix(const std::string& name);

/// Positions that VISSL's projection_head counts for one linear layer: 2 (linear, ReLU) or 3 (linear, BatchNorm, ReLU),
/// seen from all names of a file.
int projection_head_stride(const std::vector<std::string>& names);

/// Our name of a foreign tensor. Names that are not understood come back without wrappers, to be compared with what is
/// wanted. With Naming::torchvision only wrappers are taken off.
std::string our_name(const std::string& foreign, Naming naming, int head_stride);

/// The reverse, for export. `full_model`: with VISSL's leading "trunk." (a head is in the file too); alone, the trunk's
/// names are those inside VISSL's trunk dictionary.
std::string foreign_name(const std::string& ours, Naming naming, int head_stride, bool full_model);

}  // namespace seer::weights
