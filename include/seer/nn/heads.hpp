// SPDX-License-Identifier: Apache-2.0
// Projection heads (method.md 2). nn/model.hpp makes the usual ones.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "seer/nn/chain.hpp"

namespace seer::nn {

struct ProjectorOptions {
  std::vector<std::int64_t> dims;
  bool batchnorm = false;
  bool unit_rows = true;  ///< normalises the output rows to length one
  std::string name = "head";
  std::string last = {};  ///< name of the last layer; "": <name>.<i> like the others
};

/// Makes a projection head: linear layers with ReLU between them, and optional BatchNorm before each ReLU. It runs once
/// on the features of all crops. Each linear layer is a segment. Input: [rows, dims[0]]; output: [rows, width()], which
/// must stay until the backward pass is over. Registers <name>.<i>.weight|bias, and <name>.<i>.norm.* with BatchNorm.
/// Error(input) if dims does not begin with `features` or has fewer than two entries.
std::unique_ptr<Chain> make_projector(const ProjectorOptions& options, std::int64_t features,
                                      ParameterTable& parameters, ParameterTable& buffers);

}  // namespace seer::nn
