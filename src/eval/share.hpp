// SPDX-License-Identifier: Apache-2.0
// Shares a model that one rank has read, and sums BatchNorm statistics over ranks.
#pragma once

#include <string>
#include <utility>

#include "seer/comm/block_communicator.hpp"
#include "seer/config/config.hpp"
#include "seer/nn/context.hpp"

namespace seer::eval {

/// The architecture of a model as text, to be sent to other ranks.
std::string architecture_text(const config::Model& model, const config::Head& head);
std::pair<config::Model, config::Head> parse_architecture(const std::string& text);

/// Collective. Broadcasts in pieces whose sizes fit an int.
void broadcast_block(const comm::Communicator& comm, void* data, std::size_t bytes);

/// Sums BatchNorm statistics over all ranks.
class GroupSum : public nn::StatisticsReduction {
 public:
  /// Collective.
  GroupSum(const comm::Communicator& comm, const device::Queue& queue) : comm_(comm.duplicate(), queue) {}
  void sum(device::Queue& queue, double* values, std::size_t count) override {
    comm_.all_reduce(queue, std::span(values, count));
  }
  int size() const override { return comm_.size(); }

 private:
  comm::BlockCommunicator comm_;
};

}  // namespace seer::eval
