// SPDX-License-Identifier: Apache-2.0
// The order between two device queues, on simulated queues: what waits for what, when times are counted, and that
// events are reused.
#include "../../src/comm/event_order.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>

namespace seer::comm {
namespace {

/// Two simulated queues. Each is a clock, which work moves forward. `now_ms`: the device has done all work up to here.
struct Reckoned {
  double lane_ms[2] = {0, 0};
  double now_ms = 0;
  std::map<void*, double> events;
  std::string calls;  ///< c: compute, a: aside; r: record, h: hold
  int made = 0, dropped = 0;
  bool finished = false;
  void work(EventSource::Lane lane, double ms) { lane_ms[static_cast<std::size_t>(lane)] += ms; }
};

class ReckonedEvents : public EventSource {
 public:
  explicit ReckonedEvents(Reckoned& machine) : machine_(machine) {}
  Event make() override {
    ++machine_.made;
    return reinterpret_cast<Event>(static_cast<std::uintptr_t>(machine_.made));
  }
  void drop(Event) noexcept override { ++machine_.dropped; }
  void record(Event event, Lane lane) override {
    machine_.calls += lane == Lane::compute ? " rc" : " ra";
    machine_.events[event] = time(lane);
  }
  void hold(Lane lane, Event event) override {
    machine_.calls += lane == Lane::compute ? " hc" : " ha";
    time(lane) = std::max(time(lane), machine_.events.at(event));
  }
  bool reached(Event event) override { return machine_.events.at(event) <= machine_.now_ms; }
  double ms(Event from, Event to) override {
    EXPECT_TRUE(reached(from) && reached(to)) << "only reached events have times";
    return machine_.events.at(to) - machine_.events.at(from);
  }
  void finish() override { machine_.finished = true; }

 private:
  double& time(Lane lane) { return machine_.lane_ms[static_cast<std::size_t>(lane)]; }
  Reckoned& machine_;
};

constexpr auto kCompute = EventSource::Lane::compute;
constexpr auto kAside = EventSource::Lane::aside;

TEST(EventOrder, AJobBeginsAfterWhatComputeHeldAndComputeWaitsForIt) {
  Reckoned machine;
  EventOrder order(std::make_unique<ReckonedEvents>(machine), true);
  machine.work(kCompute, 10);
  const auto ticket = order.post([&] { machine.work(kAside, 5); });
  EXPECT_EQ(machine.lane_ms[1], 15) << "begins at 10";
  machine.work(kCompute, 2);
  order.wait(ticket);
  EXPECT_EQ(machine.lane_ms[0], 15) << "stands still from 12 to 15";
  EXPECT_EQ(machine.calls, " rc ha ra ra rc hc rc");
  EXPECT_EQ(order.take_busy_ms(), 0) << "the device has not done it yet";
  machine.now_ms = 20;
  EXPECT_EQ(order.take_busy_ms(), 5);
  EXPECT_EQ(order.take_stalled_ms(), 3);
  EXPECT_EQ(order.take_busy_ms(), 0);
  EXPECT_EQ(order.take_stalled_ms(), 0);
}

TEST(EventOrder, WaitsForNothingThatIsDoneOrAlreadyWaitedFor) {
  Reckoned machine;
  EventOrder order(std::make_unique<ReckonedEvents>(machine), true);
  const auto first = order.post([&] { machine.work(kAside, 5); });
  const auto second = order.post([&] { machine.work(kAside, 5); });
  const auto third = order.post([&] { machine.work(kAside, 5); });
  order.wait(second);
  machine.calls.clear();
  order.wait(first);
  order.wait(second);
  order.wait(0);
  EXPECT_EQ(machine.calls, "") << "compute already waits for both";
  machine.now_ms = 15;
  EXPECT_TRUE(order.done(third));
  order.wait(third);
  EXPECT_EQ(machine.calls, "");
}

TEST(EventOrder, DoneFollowsTheDevice) {
  Reckoned machine;
  EventOrder order(std::make_unique<ReckonedEvents>(machine), true);
  EXPECT_TRUE(order.done(0));
  const auto first = order.post([&] { machine.work(kAside, 5); });
  const auto second = order.post([&] { machine.work(kAside, 5); });
  EXPECT_FALSE(order.done(first));
  machine.now_ms = 7;
  EXPECT_TRUE(order.done(first));
  EXPECT_FALSE(order.done(second));
  EXPECT_EQ(order.take_busy_ms(), 5);
}

TEST(EventOrder, WithoutAQueueBesideAllOfItIsStandstill) {
  Reckoned machine;
  EventOrder order(std::make_unique<ReckonedEvents>(machine), false);
  EXPECT_FALSE(order.beside());
  const auto ticket = order.post([&] { machine.work(kAside, 4); });
  order.wait(ticket);
  EXPECT_EQ(machine.calls, " ra ra") << "one queue keeps its order";
  machine.now_ms = 4;
  EXPECT_EQ(order.take_busy_ms(), 4);
  EXPECT_EQ(order.take_stalled_ms(), 4);
}

TEST(EventOrder, AnErrorReachesWhoeverWaitsAndStopsWhatComesAfter) {
  Reckoned machine;
  bool ran = false;
  {
    EventOrder order(std::make_unique<ReckonedEvents>(machine), true);
    order.post([] { throw std::runtime_error("lost"); });
    const auto after = order.post([&ran] { ran = true; });
    EXPECT_THROW(order.wait(after), std::runtime_error);
    EXPECT_THROW(order.wait_all(), std::runtime_error);
  }
  EXPECT_FALSE(ran);
  EXPECT_FALSE(machine.finished) << "that queue may never become empty";
  EXPECT_EQ(machine.made, machine.dropped);
}

TEST(EventOrder, EventsGoRoundAndAreAllDropped) {
  Reckoned machine;
  {
    EventOrder order(std::make_unique<ReckonedEvents>(machine), true);
    for (int i = 0; i < 1000; ++i) {
      order.post([&] { machine.work(kAside, 1); });
      order.wait_all();
      if (i % 10 == 9) machine.now_ms = std::max(machine.lane_ms[0], machine.lane_ms[1]);
    }
    EXPECT_EQ(order.take_busy_ms(), 1000);
    EXPECT_EQ(order.take_stalled_ms(), 1000) << "nothing else to do meanwhile";
    EXPECT_LE(machine.made, 50);
    order.post([&] { machine.work(kAside, 1); });
    order.wait_all();
  }
  EXPECT_TRUE(machine.finished);
  EXPECT_EQ(machine.made, machine.dropped);
}

}  // namespace
}  // namespace seer::comm
