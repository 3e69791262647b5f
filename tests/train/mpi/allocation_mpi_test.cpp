// SPDX-License-Identifier: Apache-2.0
// Nothing allocates in the step loop: every request to the heap of the thread that trains is counted (glibc's own
// functions do the work; AddressSanitizer has a heap of its own, so there is nothing to count). Inside oneDNN, whose
// arguments are lists and whose products pack into buffers of their own, requests are counted apart; inside MPI not at
// all.
#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>

#include "seer/device/stand_in.hpp"
#include "seer/train/memory_plan.hpp"
#include "support.hpp"

#ifndef __SANITIZE_ADDRESS__
namespace {

struct Count {
  std::size_t calls = 0, bytes = 0, largest = 0;
};
thread_local Count* counted = nullptr;  ///< where requests of this thread go, or nowhere

void note(std::size_t bytes) {
  if (counted == nullptr) return;
  ++counted->calls;
  counted->bytes += bytes;
  counted->largest = std::max(counted->largest, bytes);
}

/// Requests go elsewhere for a while.
class Counting {
 public:
  explicit Counting(Count* count) : before_(counted) { counted = count; }
  ~Counting() { counted = before_; }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;

 private:
  Count* before_;
};

}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  note(bytes);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t items, std::size_t bytes) {
  note(items * bytes);
  return __libc_calloc(items, bytes);
}
void* realloc(void* old, std::size_t bytes) {
  note(bytes);
  return __libc_realloc(old, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  note(bytes);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return memalign(alignment, bytes);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) {
  *out = memalign(alignment, bytes);
  return *out == nullptr ? ENOMEM : 0;
}

// Every MPI call of Communicator that an update may come by.
int MPI_Allreduce(const void* from, void* to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  const Counting none(nullptr);
  return PMPI_Allreduce(from, to, n, type, op, comm);
}
int MPI_Allgather(const void* from, int n, MPI_Datatype type, void* to, int m, MPI_Datatype to_type, MPI_Comm comm) {
  const Counting none(nullptr);
  return PMPI_Allgather(from, n, type, to, m, to_type, comm);
}
int MPI_Allgatherv(const void* from, int n, MPI_Datatype type, void* to, const int* counts, const int* begins,
                   MPI_Datatype to_type, MPI_Comm comm) {
  const Counting none(nullptr);
  return PMPI_Allgatherv(from, n, type, to, counts, begins, to_type, comm);
}
int MPI_Reduce_scatter_block(const void* from, void* to, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  const Counting none(nullptr);
  return PMPI_Reduce_scatter_block(from, to, n, type, op, comm);
}
int MPI_Reduce_scatter(const void* from, void* to, const int* counts, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  const Counting none(nullptr);
  return PMPI_Reduce_scatter(from, to, counts, type, op, comm);
}
}

namespace seer::train {
namespace {

/// The host's back end; what it asks the heap for is counted in `library`.
class Apart final : public dnn::Backend {
 public:
  explicit Apart(device::Space space) : host_(dnn::make_host_backend(space)) {}
  Count library;

  void conv_forward(device::Queue& queue, const dnn::ConvShape& shape, device::Tensor src, dnn::Weights weight,
                    device::Tensor dst) override {
    const Counting in(mine());
    host_->conv_forward(queue, shape, src, weight, dst);
  }
  void conv_backward_data(device::Queue& queue, const dnn::ConvShape& shape, device::Tensor d_dst, dnn::Weights weight,
                          device::Tensor d_src) override {
    const Counting in(mine());
    host_->conv_backward_data(queue, shape, d_dst, weight, d_src);
  }
  void conv_backward_weights(device::Queue& queue, const dnn::ConvShape& shape, device::Tensor src,
                             device::Tensor d_dst, float* d_weight, dnn::Accumulate accumulate) override {
    const Counting in(mine());
    host_->conv_backward_weights(queue, shape, src, d_dst, d_weight, accumulate);
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, const float* a, dnn::Transpose ta,
            const float* b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate, const float* bias) override {
    const Counting in(mine());
    host_->gemm(queue, m, n, k, a, ta, b, tb, c, accumulate, bias);
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
            dnn::Transpose ta, const void* b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate,
            const float* bias) override {
    const Counting in(mine());
    host_->gemm(queue, m, n, k, type, a, ta, b, tb, c, accumulate, bias);
  }
  bool supports(DType type) override { return host_->supports(type); }
  void set_packed_weights_limit(std::size_t bytes) override { host_->set_packed_weights_limit(bytes); }
  std::size_t held_bytes() const override { return host_->held_bytes(); }
  std::string describe() const override { return host_->describe(); }

 private:
  Count* mine() { return counted == nullptr ? nullptr : &library; }
  std::unique_ptr<dnn::Backend> host_;
};

void expect_none(device::Space space) {
  const auto world = comm::Communicator::world();
  for (const auto& mode : kShardModes) {
    if (mode.group > world.size()) continue;
    for (const char* recompute : {"none", "cheap", "block"}) {
      for (const char* precision : {"fp32", "bf16"}) {
        SCOPED_TRACE(std::string(mode.shard) + " " + recompute + " " + precision);
        const auto dnn = std::make_shared<Apart>(space);
        if (precision == std::string("bf16") && !dnn->supports(DType::bf16)) continue;
        auto config = golden_config(world.size(), mode);
        config.parallel.recompute = recompute;
        config.precision.compute = precision;
        config.parallel.device = space == device::Space::device ? "device" : "host";
        config.swav.queue_length = 2 * kImages;
        const auto plan = plan_memory(config, {.ranks = world.size(), .ranks_per_node = world.size()}, 0, 0);
        Phases phases;
        Learner learner(config, world, phases, plan, dnn);
        const auto update = [&](std::int64_t t) {
          const GoldenBatch golden(t, world);
          dnn->library = {};
          Count own;
          {
            const Counting in(&own);
            learner.update(golden.batch, t, 0.05);
            phases.end_update();
          }
          return own;
        };
        for (std::int64_t t = 0; t < 4; ++t) update(t);  // from the third on the queue takes part
        Count library;
        for (std::int64_t t = 4; t < 6; ++t) {
          const auto own = update(t);
          EXPECT_EQ(own.calls, 0U) << own.bytes << " bytes, the largest " << own.largest;
          EXPECT_LT(dnn->library.largest, 128U << 10);
          if (t == 4) library = dnn->library;
        }
        EXPECT_EQ(dnn->library.calls, library.calls) << "what the library asks for grows";
        EXPECT_EQ(dnn->library.bytes, library.bytes) << "what the library asks for grows";
      }
    }
  }
}

TEST(Allocation, NoneInTheStepLoop) {
  expect_none(device::Space::host);
}

#if !defined(SEER_CUDA)
// What the program itself asks for on a device; what CUDA's libraries do is theirs.
TEST(Allocation, NoneInTheStepLoopOfADevice) {
  const device::StandIn stand_in;
  expect_none(device::Space::device);
}
#endif

}  // namespace
}  // namespace seer::train
#endif
