// SPDX-License-Identifier: Apache-2.0
// NCCL's collectives must do what MPI's do (flat_block_mpi_test.cpp): counts that the number of ranks does not divide,
// fewer elements than ranks, several rounds, 16 bits; traffic counters; order with another queue. Groups of one rank
// also go through NCCL here. NCCL needs a device for each rank. If ranks share one, these tests are skipped and say so.
#if defined(SEER_CUDA)

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device_support.hpp"
#include "seer/base/error.hpp"
#include "seer/base/half.hpp"
#include "seer/comm/block_communicator.hpp"
#include "seer/comm/progress.hpp"
#include "seer/comm/stream.hpp"
#include "seer/comm/user_buffer.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/graph.hpp"
#include "sums.hpp"

namespace seer::comm {
namespace {

constexpr std::size_t kCounts[] = {0, 1, 2, 3, 5, 64, 1000, 1003};
constexpr std::size_t kStagings[] = {1, 40, 512, BlockCommunicator::kStagingBytes};

template <class T>
void fetch(std::vector<T>& to, const void* from) {
  device::check(cudaMemcpy(to.data(), from, to.size() * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
}
template <class T>
void put(const std::vector<T>& from, void* to) {
  device::check(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
}

/// The kernels are in a higher module, so values are rounded on the host here.
void convert_on_host(device::Queue& queue, const DeviceRows& from, const DeviceRows& to) {
  queue.wait();
  const auto places = [](const DeviceRows& rows) {
    return static_cast<std::size_t>((rows.rows - 1) * rows.stride + rows.elems) * dtype_bytes(rows.dtype);
  };
  std::vector<std::byte> in(places(from)), out(places(to));
  fetch(in, from.data);
  fetch(out, to.data);
  const auto run = [&]<class Half>() {
    for (std::int64_t r = 0; r < from.rows; ++r) {
      for (std::int64_t i = 0; i < from.elems; ++i) {
        if (from.dtype == DType::f32) {
          reinterpret_cast<Half*>(out.data())[r * to.stride + i] =
              Half(reinterpret_cast<const float*>(in.data())[r * from.stride + i]);
        } else {
          reinterpret_cast<float*>(out.data())[r * to.stride + i] =
              static_cast<float>(reinterpret_cast<const Half*>(in.data())[r * from.stride + i]);
        }
      }
    }
  };
  const auto half = from.dtype == DType::f32 ? to.dtype : from.dtype;
  half == DType::bf16 ? run.operator()<BFloat16>() : run.operator()<Float16>();
  put(out, to.data);
}

class DeviceCollectives : public testing::Test {
 protected:
  void SetUp() override {
    SEER_NEEDS_DEVICE();
    queue_ = std::make_unique<device::DeviceQueue>();
    try {
      BlockCommunicator tried(world_, queue_->queue(), {}, true);
    } catch (const Error& error) {
      if (!error.agreed()) throw;
      GTEST_SKIP() << "not run: " << error.message();
    }
  }

  /// The first `ranks` ranks of the world, and the rest, with every count.
  template <class Check>
  void in_groups(const Check& check) {
    for (int ranks = 1; ranks <= world_.size(); ++ranks) {
      const auto group = world_.split(world_.rank() < ranks ? 0 : 1);
      BlockCommunicator nccl(group, queue_->queue(), &convert_on_host, true);
      for (const auto count : kCounts) {
        SCOPED_TRACE(testing::Message() << count << " elements on " << group.size() << " ranks");
        check(nccl, count);
      }
    }
  }

  /// Copies `values` to the device, passes them to `call`, and returns them afterwards.
  template <class T, class Call>
  std::vector<T> through(std::vector<T> values, BlockCommunicator& nccl, const Call& call) {
    UserBuffer buffer(values.size() * sizeof(T));
    if (!values.empty()) put(values, buffer.data());
    call(queue_->queue(), static_cast<T*>(buffer.data()));
    nccl.wait(queue_->queue());
    if (!values.empty()) fetch(values, buffer.data());
    return values;
  }

  Communicator world_ = Communicator::world();
  std::unique_ptr<device::DeviceQueue> queue_;
};

TEST_F(DeviceCollectives, AllReduceOfFloatsAndDoubles) {
  in_groups([&](BlockCommunicator& nccl, std::size_t count) {
    const auto ranks = static_cast<float>(nccl.size()), mine = static_cast<float>(nccl.rank() + 1);
    const float sum = ranks * (ranks + 1) / 2;
    const auto check = [&](auto one, const auto& reduce, float wanted) {
      const std::vector values(count, one);
      const auto found = through(values, nccl, reduce);
      for (const auto& v : found) EXPECT_EQ(static_cast<float>(v), wanted);
    };
    for (const auto op : {Op::sum, Op::max, Op::min}) {
      const float wanted = op == Op::sum ? sum : op == Op::max ? ranks : 1.0F;
      const auto reduce = [&](auto& queue, auto* v) { nccl.all_reduce(queue, std::span(v, count), op); };
      check(mine, reduce, wanted);
      check(static_cast<double>(mine), reduce, wanted);
    }
  });
}

TEST_F(DeviceCollectives, BroadcastFromAnyRank) {
  in_groups([&](BlockCommunicator& nccl, std::size_t count) {
    const int root = nccl.size() - 1;
    const auto found = through(of_rank(nccl.rank(), count), nccl, [&](auto& queue, float* values) {
      nccl.broadcast(queue, values, count * sizeof(float), root);
    });
    EXPECT_EQ(found, of_rank(root, count));
  });
}

TEST_F(DeviceCollectives, ReduceScatterLeavesTheSumInTheOwnPart) {
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    for (const auto staging : kStagings) {
      in_groups([&](BlockCommunicator& nccl, std::size_t count) {
        const auto whole = through(of_rank(nccl.rank(), count), nccl, [&](auto& queue, float* values) {
          nccl.reduce_scatter_parts(queue, std::span(values, count), wire, staging);
        });
        const auto all = static_cast<std::int64_t>(count);
        for (auto i = balanced_begin(all, nccl.rank(), nccl.size());
             i < balanced_begin(all, nccl.rank() + 1, nccl.size()); ++i) {
          expect_sum(nccl, wire, static_cast<std::size_t>(i), whole[static_cast<std::size_t>(i)]);
        }
      });
    }
  }
}

TEST_F(DeviceCollectives, SumIsTheSameOnAllRanks) {
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    for (const auto staging : kStagings) {
      in_groups([&](BlockCommunicator& nccl, std::size_t count) {
        const auto values = through(of_rank(nccl.rank(), count), nccl, [&](auto& queue, float* v) {
          nccl.sum(queue, std::span(v, count), wire, staging);
        });
        for (std::size_t i = 0; i < count; ++i) expect_sum(nccl, wire, i, values[i]);
        const auto extreme = [&](Op op) {
          return through(values, nccl, [&](auto& queue, float* v) { nccl.all_reduce(queue, std::span(v, count), op); });
        };
        EXPECT_EQ(extreme(Op::max), extreme(Op::min));
      });
    }
  }
}

TEST_F(DeviceCollectives, GatherOfPartsIsTheWholeInPlaceOrInRounds) {
  for (const auto staging : kStagings) {
    in_groups([&](BlockCommunicator& nccl, std::size_t count) {
      const auto wanted = of_rank(5, count);
      const auto all = static_cast<std::int64_t>(count);
      std::vector<float> whole(count, -1.0F);
      for (auto i = balanced_begin(all, nccl.rank(), nccl.size());
           i < balanced_begin(all, nccl.rank() + 1, nccl.size()); ++i) {
        whole[static_cast<std::size_t>(i)] = wanted[static_cast<std::size_t>(i)];
      }
      EXPECT_EQ(
          through(whole, nccl,
                  [&](auto& queue, float* values) { nccl.all_gather_parts(queue, std::span(values, count), staging); }),
          wanted);
    });
  }
}

TEST_F(DeviceCollectives, AreLeftInTheWatchdogsEyesWhenTheyHaveEnded) {
  const auto group = world_.split(0).named("device test");
  BlockCommunicator nccl(group, queue_->queue(), {}, true);
  through(std::vector<float>(1000, 1.0F), nccl, [&](auto& queue, float* values) {
    for (int i = 0; i < 10; ++i) nccl.all_reduce(queue, std::span(values, 1000), Op::max);
  });
  const Trace* found = nullptr;
  for (const auto* trace : traces_in_use()) {
    if (std::string(trace->name.load()) == "device test") found = trace;
  }
  ASSERT_NE(found, nullptr);
  EXPECT_GE(found->entered, 10);
  EXPECT_EQ(found->entered, found->left);
}

TEST_F(DeviceCollectives, AreNotRecorded) {
  BlockCommunicator nccl(world_, queue_->queue(), {}, true);
  const std::vector<float> ones(8, 1.0F);
  const auto record = [&](device::Queue& queue, float* values) {
    const device::Recording recording(queue);
    nccl.all_reduce(queue, std::span(values, ones.size()));
  };
  const auto sums = through(ones, nccl, [&](device::Queue& queue, float* values) {
    EXPECT_THROW(record(queue, values), Error);
    nccl.all_reduce(queue, std::span(values, ones.size()));  // still works
  });
  EXPECT_EQ(sums, std::vector<float>(ones.size(), static_cast<float>(world_.size())));
}

TEST_F(DeviceCollectives, AreAbortedByAnErrorOfTheirUser) {
  const auto sum = [&](bool fail) {
    BlockCommunicator nccl(world_, queue_->queue(), {}, true);
    return through(std::vector<float>(8, 1.0F), nccl, [&](auto& queue, float* values) {
      nccl.all_reduce(queue, std::span(values, 8));
      if (fail) throw Error(ExitCode::internal, "of this test");
    });
  };
  EXPECT_THROW(sum(true), Error);
  EXPECT_EQ(sum(false).front(), static_cast<float>(world_.size())) << "of the next communicator";
}

TEST_F(DeviceCollectives, AStreamKeepsTheOrderWithoutTheCallerWaiting) {
  constexpr std::size_t kCount = std::size_t{1} << 20;
  BlockCommunicator nccl(world_, queue_->queue(), {}, true);
  for (const bool beside : {true, false}) {
    UserBuffer buffer(kCount * sizeof(float));
    buffer.register_with(nccl);
    auto& compute = queue_->queue();
    Stream stream(beside, nullptr, compute);
    EXPECT_EQ(stream.threaded(), beside);
    EXPECT_EQ(stream.queue().stream == compute.stream, !beside);
    const std::vector<float> ones(kCount, 1.0F);
    device::check(
        cudaMemcpyAsync(buffer.data(), ones.data(), buffer.bytes(), cudaMemcpyHostToDevice, device::stream_of(compute)),
        "cudaMemcpyAsync");
    Stream::Ticket last = 0;
    for (int i = 0; i < 5; ++i) {
      last = stream.post([&] {
        auto queue = stream.queue();
        nccl.all_reduce(queue, std::span(buffer.f32(), kCount));
      });
    }
    stream.wait(last);
    std::vector<float> found(kCount);
    device::check(cudaMemcpyAsync(found.data(), buffer.data(), buffer.bytes(), cudaMemcpyDeviceToHost,
                                  device::stream_of(compute)),
                  "cudaMemcpyAsync");
    nccl.wait(compute);
    EXPECT_TRUE(stream.done(last));
    const auto wanted = static_cast<float>(std::pow(world_.size(), 5));
    EXPECT_EQ(found.front(), wanted);
    EXPECT_EQ(found.back(), wanted);
    EXPECT_GE(stream.take_busy_ms(), 0);
    EXPECT_GE(stream.take_stalled_ms(), 0);
  }
}

/// Needs no device: nothing is sent.
TEST(PlannedDeviceCollectives, CountAsTheOnesOverMpiDo) {
  device::NullLedger ledger;
  const auto over_mpi = Communicator::planned(8, 4, ledger), on_device = Communicator::planned(8, 4, ledger);
  BlockCommunicator nccl(on_device, {.space = device::Space::device});
  auto queue = device::Queue::planned(ledger);
  const std::span values(static_cast<float*>(device::planned_address()), 1003);
  const std::span sums(static_cast<double*>(device::planned_address()), 1003);
  over_mpi.all_reduce(values);
  nccl.all_reduce(queue, values);
  over_mpi.all_reduce(sums);
  nccl.all_reduce(queue, sums);
  over_mpi.broadcast(values.data(), 40);
  nccl.broadcast(queue, values.data(), 40);
  for (const auto wire : {DType::f32, DType::bf16, DType::f16}) {
    over_mpi.sum(values, wire);
    nccl.sum(queue, values, wire);
    over_mpi.reduce_scatter_parts(values, wire);
    nccl.reduce_scatter_parts(queue, values, wire);
  }
  over_mpi.all_gather_parts(values);
  nccl.all_gather_parts(queue, values);
  const auto wanted = over_mpi.traffic(), found = on_device.traffic();
  ASSERT_EQ(found.size(), wanted.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_STREQ(found[i].kind, wanted[i].kind);
    EXPECT_EQ(found[i].calls, wanted[i].calls) << found[i].kind;
    EXPECT_EQ(found[i].bytes, wanted[i].bytes) << found[i].kind;
  }
  EXPECT_EQ(nccl.staging_bytes(), 1008 * 4) << "8 rows of 126";
}

#if !defined(NDEBUG)
TEST_F(DeviceCollectives, MpiTakesNoMemoryOfADevice) {
  UserBuffer buffer(64);
  EXPECT_THROW(world_.all_reduce(std::span(buffer.f32(), 16)), Error);
}
#endif

}  // namespace
}  // namespace seer::comm

#endif
