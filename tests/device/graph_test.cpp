// SPDX-License-Identifier: Apache-2.0
#include "seer/device/graph.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "device_support.hpp"
#include "seer/base/error.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"

namespace seer::device {
namespace {

TEST(Graph, KeysTellEverythingApart) {
  const Tensor x{.data = nullptr, .shape = {2, 3, 4, 5}};
  Tensor other = x;
  std::vector<std::uint64_t> keys{GraphKey{}.value(), GraphKey{}.add(x).value(), GraphKey{}.add(x).add(x).value(),
                                  GraphKey{}.add(0.5F).add(x).value(), GraphKey{}.add(x).add(0.5F).value()};
  other.shape = {3, 2, 4, 5};
  keys.push_back(GraphKey{}.add(other).value());
  other = x;
  other.dtype = DType::bf16;
  keys.push_back(GraphKey{}.add(other).value());
  other = x;
  other.data = &other;
  keys.push_back(GraphKey{}.add(other).value());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i], keys[j]) << i << " and " << j;
  }
  EXPECT_EQ(GraphKey{}.add(x).value(), GraphKey{}.add(Tensor{.data = nullptr, .shape = {2, 3, 4, 5}}).value());
}

TEST(Graph, OnTheHostWorkRunsEveryTime) {
  Queue queue;
  Repeated repeated;
  int runs = 0;
  for (int i = 0; i < 5; ++i) repeated.run(queue, GraphKey{}.add(1), [&] { ++runs; });
  EXPECT_EQ(runs, 5);
  EXPECT_EQ(repeated.recorded(), 0U);
  EXPECT_THROW(Recording{queue}, Error);
  EXPECT_FALSE(Graph{});
}

/// Rotates four numbers: their positions show how often the work ran.
class DeviceGraph : public testing::Test {
 protected:
  void SetUp() override {
    SEER_NEEDS_DEVICE();
    stream = std::make_unique<DeviceQueue>();
    a = Buffer(4 * sizeof(float), Space::device);
    b = Buffer(4 * sizeof(float), Space::device);
    pinned = std::make_unique<PinnedBuffer>(4 * sizeof(float));
    const float start[] = {1, 2, 3, 4};
    copy(stream->queue(), start, Space::host, a.data(), Space::device, sizeof start);
    stream->queue().wait();
  }
  void turn() {
    Queue& queue = stream->queue();
    copy(queue, a.f32() + 1, Space::device, b.f32(), Space::device, 3 * sizeof(float));
    copy(queue, a.f32(), Space::device, b.f32() + 3, Space::device, sizeof(float));
    copy(queue, b.f32(), Space::device, a.f32(), Space::device, 4 * sizeof(float));
  }
  std::vector<float> numbers() {
    copy(stream->queue(), a.data(), Space::device, pinned->data(), Space::host, 4 * sizeof(float));
    stream->queue().wait();
    const auto* values = static_cast<const float*>(pinned->data());
    return {values, values + 4};
  }
  std::unique_ptr<DeviceQueue> stream;
  Buffer a, b;
  std::unique_ptr<PinnedBuffer> pinned;
};

TEST_F(DeviceGraph, ReplaysDoWhatTheWorkDoes) {
  Repeated repeated;
  int runs = 0;
  const auto work = [&] {
    ++runs;
    turn();
  };
  const std::vector<float> wanted[] = {{2, 3, 4, 1}, {3, 4, 1, 2}, {4, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 1}};
  for (const auto& numbers_then : wanted) {
    repeated.run(stream->queue(), GraphKey{}.add(a.data()), work);
    EXPECT_EQ(numbers(), numbers_then);
  }
  EXPECT_EQ(runs, 2) << "one normal run, one recorded run";
  EXPECT_EQ(repeated.recorded(), 1U);
  for (int key = 0; key < 200; ++key) repeated.run(stream->queue(), GraphKey{}.add(key), work);
  EXPECT_EQ(repeated.recorded(), 0U) << "keys that never repeat";
}

TEST_F(DeviceGraph, RecordingDoesNotRun) {
  Graph graph;
  {
    Recording recording(stream->queue());
    turn();
    graph = recording.end();
  }
  EXPECT_EQ(graph.steps(), 3U);
  EXPECT_EQ(numbers(), (std::vector<float>{1, 2, 3, 4}));
  graph.replay(stream->queue());
  graph.replay(stream->queue());
  EXPECT_EQ(numbers(), (std::vector<float>{3, 4, 1, 2}));
}

TEST_F(DeviceGraph, WaitingInsideIsRefused) {
  const auto record = [&] {
    Recording recording(stream->queue());
    turn();
    stream->queue().wait();
  };
  EXPECT_THROW(record(), Error);
  turn();  // the queue still works normally
  EXPECT_EQ(numbers(), (std::vector<float>{2, 3, 4, 1}));
}

TEST_F(DeviceGraph, OtherQueuesTakePart) {
  DeviceQueue beside;
  Graph graph;
  {
    Recording recording(stream->queue());
    beside.follow(stream->queue());
    copy(beside.queue(), a.f32() + 1, Space::device, b.f32(), Space::device, 3 * sizeof(float));
    copy(beside.queue(), a.f32(), Space::device, b.f32() + 3, Space::device, sizeof(float));
    stream->follow(beside.queue());
    copy(stream->queue(), b.f32(), Space::device, a.f32(), Space::device, 4 * sizeof(float));
    graph = recording.end();
  }
  for (int i = 0; i < 3; ++i) graph.replay(stream->queue());
  EXPECT_EQ(numbers(), (std::vector<float>{4, 1, 2, 3}));
}

}  // namespace
}  // namespace seer::device
