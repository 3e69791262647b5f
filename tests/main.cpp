// SPDX-License-Identifier: Apache-2.0
// One GoogleTest main for all suites: starts as the program does; ranks other than 0 are silent unless they fail; the
// exit status is the same on every rank.
#include <gtest/gtest.h>

#include "seer/base/log.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/device/session.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  seer::comm::MpiSession mpi(argc, argv);
  seer::device::Session device;
  auto world = seer::comm::Communicator::world();
  seer::log::start(world.rank(), world.size());
  if (!world.is_root()) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
  }
  const int failed = RUN_ALL_TESTS();
  return world.all_reduce(static_cast<std::int64_t>(failed), seer::comm::Op::max) != 0 ? 1 : 0;
}
