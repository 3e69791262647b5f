// SPDX-License-Identifier: Apache-2.0
// What NCCL wants before it starts, as words: no header of its, so that this can be tested in any build.
#pragma once

#include <optional>
#include <string>

namespace seer::comm {

/// 22809 -> "2.28.9"; before 2.9 the digits meant something else.
std::string nccl_version_text(int code);
/// Why a library of version `found` will not do for a program built with the headers of `built`; nothing where it will.
std::optional<std::string> nccl_refusal(int found, int built);

}  // namespace seer::comm
