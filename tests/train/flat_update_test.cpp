// SPDX-License-Identifier: Apache-2.0
// When an update steps its buckets, as a planned machine records it: every pass over memory, every collective during
// the computation, and every wait for one.
#include <gtest/gtest.h>

#include <algorithm>

#include "seer/train/learner.hpp"
#include "seer/train/memory_plan.hpp"

namespace seer::train {
namespace {

class Diary : public device::NullLedger {
 public:
  struct Entry {
    enum class What { pass, wait } what;
    std::uint64_t ticket = 0;  ///< of the wait
    double bytes = 0;          ///< of the pass
  };
  void work(const device::Work& work) override {
    if (!aside_) entries.push_back({Entry::What::pass, 0, work.bytes});
  }
  void message(const device::Message& message) override {
    kinds.push_back(message.kind);
    if (message.name == "norms") norm_bytes.push_back(message.bytes);
  }
  void begin_aside() override {
    aside_ = true;
    kinds.clear();
  }
  std::uint64_t end_aside() override {
    aside_ = false;
    const auto ticket = NullLedger::end_aside();
    const bool sums = !kinds.empty() && kinds.front() != device::Message::Kind::all_gather;
    if (sums) last_sum = ticket;
    return ticket;
  }
  void wait(std::uint64_t ticket) override {
    if (ticket > 0) entries.push_back({Entry::What::wait, ticket});
  }
  std::vector<Entry> entries;
  std::vector<device::Message::Kind> kinds;
  std::vector<double> norm_bytes;
  std::uint64_t last_sum = 0;  ///< the ticket of the last bucket's sum

 private:
  bool aside_ = false;
};

config::Config small_config(const char* shard) {
  config::Config c;
  c.model.preset = "tiny";
  c.head.dims = {64, 32, 16};
  c.head.prototypes = 24;
  c.crops = {{2, 32, {0.14, 1.0}}, {4, 16, {0.05, 0.14}}};
  c.data.global_batch = 8;
  c.parallel.bn_group_size = 2;
  c.parallel.bucket_bytes = 1000;
  c.parallel.shard = shard;
  return c;
}

/// True for one step of LARS over `elems` elements: it reads parameters, gradients and momenta, and writes two of them.
bool is_step(const Diary::Entry& e, std::int64_t elems) {
  return e.what == Diary::Entry::What::pass && e.bytes == 4.0 * 5 * static_cast<double>(elems);
}

TEST(FlatUpdate, EarlyBucketsAreSteppedBeforeTheLastSumIsWaitedFor) {
  for (const char* shard : {"none", "optimizer", "gradients", "parameters"}) {
    SCOPED_TRACE(shard);
    const auto config = small_config(shard);
    const Topology topology{.ranks = 2, .ranks_per_node = 2};
    Diary diary;
    const auto comm = comm::Communicator::planned(2, 2, diary);
    Phases phases;
    Learner learner(config, comm, phases, plan_memory(config, topology, 0, 0), planned_backend(topology));
    const auto batch = planned_batch(config, 2);
    learner.update(batch, 1000, 0.1);
    diary.entries.clear();
    diary.norm_bytes.clear();
    learner.update(batch, 1001, 0.1);

    const auto& entries = diary.entries;
    const auto last_sum = std::find_if(entries.begin(), entries.end(), [&](const auto& e) {
      return e.what == Diary::Entry::What::wait && e.ticket == diary.last_sum;
    });
    ASSERT_NE(last_sum, entries.end());
    // The prototypes are a separate bucket, which is complete first.
    const auto prototypes = std::int64_t{24 * 16} / (shard == std::string("none") ? 1 : 2);
    EXPECT_TRUE(std::any_of(entries.begin(), last_sum, [&](const auto& e) { return is_step(e, prototypes); }));
    const auto tensors = static_cast<double>(learner.model().parameters().entries().size());
    double bytes = 0;
    for (const auto b : diary.norm_bytes) bytes += b;
    EXPECT_EQ(bytes, shard == std::string("none") ? 0 : 2 * 8 * tensors) << "every tensor's norms, once";
    EXPECT_EQ(diary.norm_bytes.size(), shard == std::string("none") ? 0U : 2U);
  }
}

}  // namespace
}  // namespace seer::train
