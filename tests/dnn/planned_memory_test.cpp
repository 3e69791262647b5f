// SPDX-License-Identifier: Apache-2.0
// After the same call, a planned backend holds as much memory as the real one, whatever the library chooses on this
// processor.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "seer/device/ledger.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn {
namespace {

class PlannedMemory : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (!real->supports(type)) GTEST_SKIP() << real->describe() << " cannot on this processor";
  }
  using Floats = std::vector<float>;
  static Floats zeros(std::int64_t count) { return Floats(static_cast<std::size_t>(count)); }  // of any type
  device::Tensor tensor(Floats& values, const device::Shape& shape) const {
    return {.data = values.data(), .shape = shape, .dtype = type};
  }
  device::Tensor planned(const device::Shape& shape) const {
    return {.data = device::planned_address(), .shape = shape, .dtype = type, .space = device::Space::planned};
  }
  const DType type = GetParam();
  device::NullLedger ledger;
  device::Queue queue, planned_queue = device::Queue::planned(ledger);
  std::unique_ptr<Backend> real = make_host_backend(), plan = make_host_backend(device::Space::planned);
};

TEST_P(PlannedMemory, OfProducts) {
  struct Sizes {
    std::int64_t m, n, k;
  };
  for (const auto& [m, n, k] : {Sizes{16, 20, 64}, Sizes{48, 1000, 128}, Sizes{130, 67, 51}, Sizes{4, 8, 1000}}) {
    for (const auto ta : {Transpose::no, Transpose::yes}) {
      for (const auto tb : {Transpose::no, Transpose::yes}) {
        for (const auto accumulate : {Accumulate::no, Accumulate::yes}) {
          for (const bool with_bias : {false, true}) {
            SCOPED_TRACE(testing::Message() << m << "x" << n << "x" << k << (with_bias ? ", bias" : "")
                                            << (accumulate == Accumulate::yes ? ", added" : ""));
            const auto a = zeros(m * k), b = zeros(k * n), bias = zeros(n);
            auto c = zeros(m * n);
            auto* const nowhere = static_cast<float*>(device::planned_address());
            real = make_host_backend();
            plan = make_host_backend(device::Space::planned);
            real->gemm(queue, m, n, k, type, a.data(), ta, b.data(), tb, c.data(), accumulate,
                       with_bias ? bias.data() : nullptr);
            plan->gemm(planned_queue, m, n, k, type, nowhere, ta, nowhere, tb, nowhere, accumulate,
                       with_bias ? nowhere : nullptr);
            EXPECT_EQ(plan->held_bytes(), real->held_bytes());
          }
        }
      }
    }
  }
}

TEST_P(PlannedMemory, OfConvolutions) {
  const ConvShape shapes[] = {
      {.n = 2, .h = 16, .w = 16, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1},
      {.n = 2, .h = 8, .w = 8, .c_in = 24, .c_out = 24, .kernel = 3, .stride = 1, .pad = 1, .groups = 3},
      {.n = 2, .h = 8, .w = 8, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 1},
      {.n = 2, .h = 8, .w = 8, .c_in = 56, .c_out = 56, .kernel = 3, .stride = 1, .pad = 1, .groups = 7},
      {.n = 2, .h = 7, .w = 7, .c_in = 48, .c_out = 104},
      {.n = 2, .h = 7, .w = 7, .c_in = 64, .c_out = 40, .stride = 2},
  };
  for (const auto& s : shapes) {
    const device::Shape in{s.n, s.h, s.w, s.c_in}, out{s.n, s.out_h(), s.out_w(), s.c_out};
    auto src = zeros(in.elems()), dst = zeros(out.elems()), weight = zeros(s.weight_elems());
    auto* const nowhere = static_cast<float*>(device::planned_address());
    for (const std::uint64_t version : {0U, 1U}) {
      for (int direction = 0; direction < 4; ++direction) {
        SCOPED_TRACE(testing::Message() << s.c_in << " -> " << s.c_out << " groups " << s.groups << " direction "
                                        << direction << " version " << version);
        real = make_host_backend();
        plan = make_host_backend(device::Space::planned);
        if (direction == 0) {
          real->conv_forward(queue, s, tensor(src, in), {weight.data(), version}, tensor(dst, out));
          plan->conv_forward(planned_queue, s, planned(in), {nowhere, version}, planned(out));
        } else if (direction == 1) {
          real->conv_backward_data(queue, s, tensor(dst, out), {weight.data(), version}, tensor(src, in));
          plan->conv_backward_data(planned_queue, s, planned(out), {nowhere, version}, planned(in));
        } else {
          const auto accumulate = direction == 2 ? Accumulate::no : Accumulate::yes;
          real->conv_backward_weights(queue, s, tensor(src, in), tensor(dst, out), weight.data(), accumulate);
          plan->conv_backward_weights(planned_queue, s, planned(in), planned(out), nowhere, accumulate);
        }
        EXPECT_EQ(plan->held_bytes(), real->held_bytes());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PlannedMemory, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& tested) {
                           return tested.param == DType::f32 ? "f32" : tested.param == DType::bf16 ? "bf16" : "f16";
                         });

}  // namespace
}  // namespace seer::dnn
