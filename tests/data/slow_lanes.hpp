// SPDX-License-Identifier: Apache-2.0
// Imitates the two queues of a device with two lists of work. Each list is done in order, as late or as early as the
// calls that order the queues allow, since a device may do either. The memory is the host's, so a buffer that is reused
// too early holds wrong values when its reader runs.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <utility>

#include "../../src/data/device_feed.hpp"
#include "seer/base/checksum.hpp"
#include "seer/device/queue.hpp"

namespace seer::test {

class TwoLanes {
 public:
  enum class Late : std::uint8_t { main, side };
  explicit TwoLanes(Late late) : late_(late) {}

  void hand_main(std::function<void()> work) { hand(main_, std::move(work)); }
  void hand_side(std::function<void()> work) { hand(side_, std::move(work)); }
  void main_follows_side() { main_.after = side_.handed; }
  void side_follows_main() { side_.after = main_.handed; }
  void wait_for_side() { run_until(side_, main_, side_.handed); }
  void wait_for_all() {
    run_until(main_, side_, main_.handed);
    run_until(side_, main_, side_.handed);
  }

 private:
  struct Work {
    std::function<void()> body;
    std::int64_t after;  // so many pieces of the other lane's work must be done before
  };
  struct Lane {
    std::deque<Work> waiting;
    std::int64_t handed = 0, done = 0, after = 0;
  };
  void hand(Lane& lane, std::function<void()> work) {
    lane.waiting.push_back({std::move(work), lane.after});
    ++lane.handed;
    Lane& early = late_ == Late::main ? side_ : main_;
    const Lane& other = late_ == Late::main ? main_ : side_;
    while (!early.waiting.empty() && early.waiting.front().after <= other.done) step(early);
  }
  static void step(Lane& lane) {
    const auto work = std::move(lane.waiting.front());
    lane.waiting.pop_front();
    work.body();
    ++lane.done;
  }
  static void run_until(Lane& lane, Lane& other, std::int64_t count) {
    while (lane.done < count) {
      run_until(other, lane, lane.waiting.front().after);
      if (lane.done < count) step(lane);
    }
  }
  Late late_;
  Lane main_, side_;
};

/// The lanes as the feed sees them. `fault` omits one of the orderings, to check that a test notices it.
class SlowLanes final : public data::Lanes {
 public:
  enum class Fault : std::uint8_t { none, side_does_not_follow, main_does_not_follow, nobody_waits };
  explicit SlowLanes(TwoLanes& lanes, Fault fault = Fault::none) : lanes_(lanes), fault_(fault) {}

  device::Space space() const override { return device::Space::host; }
  void copy(const void* pinned, void* there, std::size_t bytes) override {
    // A table that was overwritten in the meantime must not be used: its places belong to another batch.
    lanes_.hand_side([this, pinned, there, bytes, sum = checksum(pinned, bytes)] {
      if (checksum(pinned, bytes) != sum) ++spoiled_;
      std::memcpy(there, pinned, bytes);
    });
  }
  void make(const kernels::CropBatch& batch) override {
    lanes_.hand_side([this, batch] {
      if (spoiled_ > 0) return;
      device::Queue queue;
      kernels::make_crops(queue, batch);
    });
  }
  void side_follows_main() override {
    if (fault_ != Fault::side_does_not_follow) lanes_.side_follows_main();
  }
  void main_follows_side() override {
    if (fault_ != Fault::main_does_not_follow) lanes_.main_follows_side();
  }
  void wait_for_side() override {
    if (fault_ != Fault::nobody_waits) lanes_.wait_for_side();
  }

 private:
  TwoLanes& lanes_;
  Fault fault_;
  int spoiled_ = 0;  // batches whose staging changed before it was copied
};

}  // namespace seer::test
