// SPDX-License-Identifier: Apache-2.0
// Checks NCCL's version and words the refusal. Includes no NCCL header, so that any build can test it.
#pragma once

#include <optional>
#include <string>

namespace seer::comm {

/// 22809 -> "2.28.9"; before 2.9 the digits meant something else.
std::string nccl_version_text(int code);
/// Returns why a library of version `found` does not suit a program built with the headers of `built`; nothing if it
/// does.
std::optional<std::string> nccl_refusal(int found, int built);

}  // namespace seer::comm
