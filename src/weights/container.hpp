// SPDX-License-Identifier: Apache-2.0
// Recognises a file of weights: ours, safetensors, or another tool's. For the latter, says how to convert it.
#pragma once

#include <string>

namespace seer::weights {

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

}  // namespace seer::weights
