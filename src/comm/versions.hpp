// SPDX-License-Identifier: Apache-2.0
// Checks NCCL's version and words the refusal. Includes no NCCL header, so that any build can test it.
#pragma once

#include <fmt/format.h>

#include <optional>
#include <string>

namespace seer::comm {

/// 22809 -> "2.28.9"; before 2.9 the digits meant something else.
inline std::string nccl_version_text(int code) {
  const int unit = code < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", code / unit, code % unit / 100, code % 100);
}

/// Returns why a library of version `found` does not suit a program built with the headers of `built`; nothing if it
/// does.
inline std::optional<std::string> nccl_refusal(int found, int built) {
  constexpr int kOldest = 21800;  // as in cmake/FindSeerCuda.cmake
  const auto version = nccl_version_text(found);
  if (found < kOldest)
    return fmt::format("NCCL {} is too old; {} or newer is needed", version, nccl_version_text(kOldest));
  // A newer library works with older headers, not the other way round. The last number is the patch level.
  if (found / 100 < built / 100) {
    return fmt::format("NCCL {} was found at run time, and this seer was built with {}", version,
                       nccl_version_text(built));
  }
  return std::nullopt;
}

}  // namespace seer::comm
