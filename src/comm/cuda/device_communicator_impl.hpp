// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <memory>
#include <optional>

#include "live.hpp"
#include "seer/comm/device_communicator.hpp"
#include "seer/comm/user_buffer.hpp"

namespace seer::comm {

struct DeviceCommunicator::Impl {
  Impl(const Communicator& group, Convert convert_in);
  ~Impl();

  /// Counts the call, and unless that is all, runs `call` between the watchdog's marks.
  template <class Call>
  void enter(Kind kind, std::size_t bytes, const device::Queue& queue, const Call& call);
  /// Returns at least `bytes` of registered memory; the same place until more is wanted. Null on a planned machine.
  void* staging(std::size_t bytes);
  /// Copies rows in the queue's order, rounded if the types differ.
  void move(device::Queue& queue, const DeviceRows& from, const DeviceRows& to) const;

  Communicator group;  ///< no MPI: only rank, size and counters
  Convert convert;
  std::shared_ptr<Live> live;  ///< null: planned, or one rank
  std::optional<Watched> watched;
  UserBuffer stage;
  int exceptions = std::uncaught_exceptions();
};

}  // namespace seer::comm
