// SPDX-License-Identifier: Apache-2.0
// What a file of weights is that somebody gives: ours, safetensors, or another tool's, and then how to convert it.
#pragma once

#include <string>

namespace seer::weights {

struct Container {
  enum class Kind { unknown, ours, safetensors, foreign } kind = Kind::unknown;
  std::string what;    ///< "a checkpoint of PyTorch (zip)"
  std::string remedy;  ///< the lines or the command that make it readable
};

/// From the first and last bytes, or what lies in a folder. unknown: also where it cannot be read.
Container container_of(const std::string& path);

/// Error(file) for what is certainly no weights file or checkpoint of ours.
void require_weights(const std::string& path);

/// "seer import photos.safetensors photos.h5 --preset 400mf", the options as far as the file tells them.
std::string import_command(const std::string& path);

/// A word of a command line, quoted where the shell would read it otherwise.
std::string shell_word(const std::string& word);

}  // namespace seer::weights
