// SPDX-License-Identifier: Apache-2.0
#include "versions.hpp"

#include <fmt/format.h>

namespace seer::comm {
namespace {

constexpr int kOldest = 21800;  ///< as in cmake/FindSeerCuda.cmake

}  // namespace

std::string nccl_version_text(int code) {
  const int unit = code < 10000 ? 1000 : 10000;
  return fmt::format("{}.{}.{}", code / unit, code % unit / 100, code % 100);
}

std::optional<std::string> nccl_refusal(int found, int built) {
  if (found < kOldest) {
    return fmt::format("NCCL {} is too old; {} or newer is needed", nccl_version_text(found),
                       nccl_version_text(kOldest));
  }
  // A newer library works with older headers, not the other way round. The last number is the patch level.
  if (found / 100 < built / 100) {
    return fmt::format("NCCL {} was found at run time, and this seer was built with {}", nccl_version_text(found),
                       nccl_version_text(built));
  }
  return std::nullopt;
}

}  // namespace seer::comm
