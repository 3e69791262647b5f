// SPDX-License-Identifier: Apache-2.0
// Private to eval: joins lists that the ranks hold in parts.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "seer/comm/communicator.hpp"

namespace seer::eval {

/// Collective. The values of all ranks, in the order of the ranks.
template <class T>
std::vector<T> gathered(const comm::Communicator& comm, const std::vector<T>& mine) {
  std::vector<T> out;
  for (const auto& bytes :
       comm.all_gather(std::string(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(T)))) {
    const auto begin = out.size();
    out.resize(begin + bytes.size() / sizeof(T));
    std::memcpy(out.data() + begin, bytes.data(), bytes.size());
  }
  return out;
}

}  // namespace seer::eval
