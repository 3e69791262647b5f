// SPDX-License-Identifier: Apache-2.0
// The text of run_dir/lock, and whether the process it names lives.
#pragma once

#include <optional>
#include <string>

#include "seer/train/run_lock.hpp"

namespace seer::train {

std::string to_text(const LockOwner& owner);
/// Nothing for a lock that was given back (empty). A text that is not ours is an owner of whom nothing is known.
std::optional<LockOwner> from_text(const std::string& text);
/// Known to be dead. False where `asking` cannot know: the owner's process runs, or ran, out of its sight.
bool is_dead(const LockOwner& owner, const LockOwner& asking);

}  // namespace seer::train
