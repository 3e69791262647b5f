// SPDX-License-Identifier: Apache-2.0
// One GoogleTest main for all suites: starts as the program does; ranks other than 0 are silent unless they fail; the
// exit status is the same on every rank.
#include <gtest/gtest.h>

#include <cstdio>

#include <string>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/comm/communicator.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/session.hpp"

namespace {

/// On ranks other than 0: nothing but failures, each with its rank.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}
  void OnTestStart(const testing::TestInfo& test) override { test_ = &test; }
  // GoogleTest holds its lock while it calls this: asking it for the running test would never return.
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s.%s: %s:%d: %s\n", rank_, test_ != nullptr ? test_->test_suite_name() : "-",
                 test_ != nullptr ? test_->name() : "-", result.file_name() != nullptr ? result.file_name() : "-",
                 result.line_number(), result.message());
  }

 private:
  int rank_;
  const testing::TestInfo* test_ = nullptr;
};

/// Suites of several ranks also run on a machine with one device, which they share, and without: tests that need one,
/// or one of their own, say so themselves.
std::string bind_device() {
  try {
    seer::device::bind_device();
    return "";
  } catch (const seer::Error& error) {
    return error.message();
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const std::string no_device = bind_device();
  seer::comm::MpiSession mpi(argc, argv);
  seer::device::Session device;
  auto world = seer::comm::Communicator::world();
  seer::log::start(world.rank(), world.size());
  if (!no_device.empty()) seer::log::info("no device is bound: " + no_device);
  if (!world.is_root()) {
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailurePrinter(world.rank()));  // the list owns it
  }
  const int failed = RUN_ALL_TESTS();
  return world.all_reduce(static_cast<std::int64_t>(failed), seer::comm::Op::max) != 0 ? 1 : 0;
}
