// SPDX-License-Identifier: Apache-2.0
// Checks names of output files: an ending must not promise another format.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>

#include "seer/base/error.hpp"

namespace seer::app {

inline std::string ending_of(const std::string& path) {
  auto ending = std::filesystem::path(path).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(), [](unsigned char c) { return std::tolower(c); });
  return ending;
}

/// Throws Error(input), agreed, unless `path` ends in `wanted` (".safetensors"), upper or lower case.
inline void require_ending(const std::string& path, const std::string& wanted) {
  const auto ending = ending_of(path);
  if (ending == wanted) return;
  throw Error(ExitCode::input,
              fmt::format("{}: {}, wanted {}", path,
                          ending.empty() ? "no ending that names a format" : ending + " is not written", wanted),
              fmt::format("name it {}", std::filesystem::path(path).replace_extension(wanted).string()))
      .as_agreed();
}

/// Throws Error(input), agreed, if `path` has the ending of another format than `written`.
inline void refuse_misleading(const std::string& path, const std::string& written) {
  constexpr const char* kOthers[] = {".csv",         ".tsv",  ".txt",     ".json", ".jsonl", ".npy",
                                     ".npz",         ".mat",  ".parquet", ".pt",   ".pth",   ".pkl",
                                     ".safetensors", ".onnx", ".bin",     ".zip",  ".tar",   ".gz"};
  const auto ending = ending_of(path);
  if (std::find(std::begin(kOthers), std::end(kOthers), ending) == std::end(kOthers)) return;
  throw Error(ExitCode::input, fmt::format("{}: {} is not written, this command writes {}", path, ending, written),
              written == "HDF5"
                  ? fmt::format("name it {}", std::filesystem::path(path).replace_extension(".h5").string())
                  : "give it a name without that ending")
      .as_agreed();
}

}  // namespace seer::app
