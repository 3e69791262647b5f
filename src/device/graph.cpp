// SPDX-License-Identifier: Apache-2.0
#include "seer/device/graph.hpp"

#include <algorithm>

#include "seer/base/error.hpp"

namespace seer::device {

std::size_t Repeated::recorded() const {
  return static_cast<std::size_t>(
      std::count_if(known_.begin(), known_.end(), [](const auto& entry) { return static_cast<bool>(entry.second); }));
}

void Repeated::forget_but(std::uint64_t key) {
  std::erase_if(known_, [key](const auto& entry) { return entry.first != key; });
}

#if !defined(SEER_CUDA)
// A host build records nothing, and so has nothing to replay.
Graph::~Graph() = default;
void Graph::replay(Queue&) const {
  ensure(false, "a recording was replayed in a host build");
}
Recording::Recording(Queue& queue) : queue_(queue) {
  throw Error(ExitCode::device, "work is to be recorded in a host build", "configure with -DSEER_CUDA=ON");
}
Recording::~Recording() = default;
Graph Recording::end() {
  ensure(open_, "a recording was ended in a host build");
  return {};
}
bool records(const Queue&) {
  return false;
}
#endif

}  // namespace seer::device
