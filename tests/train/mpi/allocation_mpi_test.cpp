// SPDX-License-Identifier: Apache-2.0
// The step loop allocates no memory. The test counts all heap requests of the thread that trains; glibc's functions
// serve them. (AddressSanitizer replaces the heap, so nothing is counted then.) Requests of oneDNN are counted
// separately, because it needs memory for lists of arguments and for packed operands. Requests of MPI are not counted.
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
thread_local Count* counted = nullptr;  ///< counts the requests of this thread; null: nothing does

void note(std::size_t bytes) {
  if (counted == nullptr) return;
  ++counted->calls;
  counted->bytes += bytes;
  counted->largest = std::max(counted->largest, bytes);
}

/// Requests are counted elsewhere during its life.
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

// All MPI calls of Communicator that an update may use.
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

/// The host's back end. Its heap requests are counted in `library`.
class Apart final : public dnn::Backend {
 public:
  explicit Apart(device::Space space) : host_(dnn::make_host_backend(space)) {}
  Count library;

  void conv(device::Queue& queue, dnn::Direction direction, const dnn::ConvShape& shape, device::Tensor input,
            dnn::Weights weight, device::Tensor output, dnn::Accumulate accumulate) override {
    const Counting in(mine());
    host_->conv(queue, direction, shape, input, weight, output, accumulate);
  }
  void conv_backward_weights(device::Queue& queue, const dnn::ConvShape& shape, device::Tensor src,
                             device::Tensor d_dst, float* d_weight, dnn::Accumulate accumulate) override {
    const Counting in(mine());
    host_->conv_backward_weights(queue, shape, src, d_dst, d_weight, accumulate);
  }
  void gemm(device::Queue& queue, std::int64_t m, std::int64_t n, std::int64_t k, DType type, const void* a,
            dnn::Transpose ta, const void* b, dnn::Transpose tb, float* c, dnn::Accumulate accumulate,
            const float* bias) override {
    const Counting in(mine());
    host_->gemm(queue, m, n, k, type, a, ta, b, tb, c, accumulate, bias);
  }
  bool can_add(const dnn::ConvShape& shape, DType type) const override { return host_->can_add(shape, type); }
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
        for (std::int64_t t = 0; t < 4; ++t) update(t);  // the queue takes part from the third one on
        Count library;
        for (std::int64_t t = 4; t < 6; ++t) {
          const auto own = update(t);
          EXPECT_EQ(own.calls, 0U) << own.bytes << " bytes, the largest " << own.largest;
          EXPECT_LT(dnn->library.largest, 128U << 10);
          if (t == 4) library = dnn->library;
        }
        EXPECT_EQ(dnn->library.calls, library.calls) << "the library requests more memory with each update";
        EXPECT_EQ(dnn->library.bytes, library.bytes) << "the library requests more memory with each update";
      }
    }
  }
}

TEST(Allocation, NoneInTheStepLoop) {
  expect_none(device::Space::host);
}

#if !defined(SEER_CUDA)
// Requests of the program itself on a device; those of CUDA's libraries do not count.
TEST(Allocation, NoneInTheStepLoopOfADevice) {
  const device::StandIn stand_in;
  expect_none(device::Space::device);
}
#endif

}  // namespace
}  // namespace seer::train
#endif
