// SPDX-License-Identifier: Apache-2.0
#include "seer/device/memory.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "seer/device/queue.hpp"

namespace seer::device {
namespace {

TEST(Pool, LendsTheSmallestStretchAndJoinsNeighbours) {
  Pool pool;
  pool.reserve(1024);
  auto a = pool.bytes(256), b = pool.bytes(128), c = pool.bytes(256);
  auto* const at_b = b->data;
  a.release();
  b.release();  // 384 free in front, 384 behind
  auto d = pool.bytes(384);
  EXPECT_EQ(pool.system_allocations(), 1U);
  auto e = pool.bytes(300);
  EXPECT_EQ(pool.system_allocations(), 1U);
  EXPECT_EQ(pool.peak_bytes(), 384U + 256U + 320U);
  EXPECT_NE(d->data, at_b);
  auto f = pool.bytes(1024);  // does not fit any more
  EXPECT_EQ(pool.system_allocations(), 2U);
}

TEST(Pool, AnyOrderOfLoansNeverOverlapsAndPlansAlike) {
  Pool real, planned(Space::planned);
  struct Pair {
    Loan real, planned;
  };
  std::vector<Pair> loans;
  std::mt19937 random(5);
  std::size_t high = 0;
  for (int pass = 0; pass < 2; ++pass) {
    if (pass == 1) {
      loans.clear();
      EXPECT_EQ(real.in_use_bytes(), 0U);
      real.trim();
      EXPECT_EQ(real.held_bytes(), 0U);
      real.reserve(planned.held_bytes());
      random.seed(5);
    }
    const auto before = real.system_allocations();
    for (int i = 0; i < 2000; ++i) {
      if (!loans.empty() && random() % 2 == 0) {
        loans.erase(loans.begin() + static_cast<std::ptrdiff_t>(random() % loans.size()));
      } else if (loans.size() < 40) {
        const auto bytes = static_cast<std::int64_t>(1 + random() % 5000);
        loans.push_back({real.bytes(static_cast<std::size_t>(bytes)), planned.bytes(static_cast<std::size_t>(bytes))});
        auto* data = static_cast<unsigned char*>(loans.back().real->data);
        for (std::int64_t k = 0; k < bytes; ++k) data[k] = static_cast<unsigned char>(loans.size());
      }
      high = std::max(high, real.in_use_bytes());
      EXPECT_EQ(real.in_use_bytes(), planned.in_use_bytes());
    }
    if (pass == 1) {
      EXPECT_EQ(real.system_allocations(), before) << "what was planned was enough";
    }
  }
  EXPECT_EQ(planned.peak_bytes(), high);
  for (std::size_t i = 0; i < loans.size(); ++i) {
    for (std::size_t j = i + 1; j < loans.size(); ++j) {
      const auto* a = static_cast<const char*>(loans[i].real->data);
      const auto* b = static_cast<const char*>(loans[j].real->data);
      EXPECT_TRUE(a + loans[i].real->bytes() <= b || b + loans[j].real->bytes() <= a);
    }
  }
}

TEST(Pool, WhatWasPlannedIsExactlyEnough) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    const auto go = [seed](Pool& pool) {
      std::vector<Loan> loans;
      std::mt19937 random(seed);
      for (int i = 0; i < 300; ++i) {
        if (!loans.empty() && random() % 2 == 0) {
          loans.erase(loans.begin() + static_cast<std::ptrdiff_t>(random() % loans.size()));
        } else {
          loans.push_back(pool.bytes(1 + random() % 100000));
        }
      }
    };
    Pool planned(Space::planned), real;
    go(planned);
    real.reserve(planned.held_bytes());
    go(real);
    EXPECT_EQ(real.system_allocations(), 1U) << seed;
    EXPECT_EQ(real.held_bytes(), planned.held_bytes());
  }
}

TEST(Queue, PlannedOnesTellTheLedger) {
  struct Sum : NullLedger {
    void work(const Work& work) override { bytes += work.bytes; }
    double bytes = 0;
  } ledger;
  EXPECT_FALSE(Queue{}.only_plans(10));
  EXPECT_TRUE(Queue::planned(ledger).only_plans(10));
  EXPECT_EQ(ledger.bytes, 10);
}

}  // namespace
}  // namespace seer::device
