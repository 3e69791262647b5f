// SPDX-License-Identifier: Apache-2.0
// The text of run_dir/lock, and whether the process in it is alive.
#pragma once

#include <optional>
#include <string>

#include "seer/run/run_lock.hpp"

namespace seer::run {

std::string to_text(const LockOwner& owner);
/// Empty text (a released lock): nothing. Text that this program did not write: an owner without known fields.
std::optional<LockOwner> from_text(const std::string& text);
/// Whether the owner's process is known to have ended. False if `asking` cannot see it (another node or container).
bool is_dead(const LockOwner& owner, const LockOwner& asking);

}  // namespace seer::run
