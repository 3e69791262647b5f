// SPDX-License-Identifier: Apache-2.0
// The product against loops in double precision: all transposes, odd sizes, bias, accumulation.
#include <gtest/gtest.h>

#include <tuple>

#include "naive.hpp"
#include "places.hpp"
#include "seer/dnn/backend.hpp"
#if defined(SEER_CUDA)
#include "seer/device/device_queue.hpp"
#endif

namespace seer::dnn {
namespace {

struct Sizes {
  std::int64_t m, n, k;
};
void PrintTo(const Sizes& s, std::ostream* stream) {
  *stream << s.m << "x" << s.n << "x" << s.k;
}

class Gemm : public testing::TestWithParam<std::tuple<Sizes, Transpose, Transpose, Accumulate, bool, Place>> {};

TEST_P(Gemm, MatchesTheDefinition) {
  const auto [sizes, ta, tb, accumulate, with_bias, place] = GetParam();
  SEER_NEEDS_PLACE(place);
  const auto [m, n, k] = sizes;
  const auto a = naive::random(m * k, 1), b = naive::random(k * n, 2), bias = naive::random(n, 3);
  auto c = naive::random(m * n, 4);
  if (accumulate == Accumulate::no) std::fill(c.begin(), c.end(), NAN);
  const auto expected = naive::gemm(m, n, k, a, ta, b, tb, with_bias ? bias : naive::Floats{},
                                    accumulate == Accumulate::yes ? c : naive::Floats{});
  device::Queue queue;
  make_backend(place)->gemm(queue, m, n, k, a.data(), ta, b.data(), tb, c.data(), accumulate,
                            with_bias ? bias.data() : nullptr);
  EXPECT_LT(naive::relative_error(c, expected), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(All, Gemm,
                         testing::Combine(testing::Values(Sizes{1, 1, 1}, Sizes{1, 13, 7}, Sizes{5, 1, 9},
                                                          Sizes{17, 3, 1}, Sizes{1, 1, 65}, Sizes{33, 47, 19},
                                                          Sizes{64, 16, 373}, Sizes{130, 67, 51}, Sizes{2, 515, 31}),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Transpose::no, Transpose::yes),
                                          testing::Values(Accumulate::no, Accumulate::yes), testing::Bool(), kPlaces));

#if defined(SEER_CUDA)
// Parameters lie one after another in one block, so a bias may begin at any multiple of 4 bytes. A plan for a better
// aligned bias must not be used for it.
TEST(DeviceGemm, TakesABiasOnAnyBoundary) {
  SEER_NEEDS_DEVICE();
  const std::int64_t m = 64, n = 128, k = 32;
  const auto a = naive::random(m * k, 1), b = naive::random(k * n, 2), bias = naive::random(n, 3);
  const auto expected = naive::gemm(m, n, k, a, Transpose::no, b, Transpose::no, bias, {});
  device::DeviceQueue own;
  auto queue = own.queue();
  const auto up = [&](const naive::Floats& values, std::size_t skipped) {
    auto buffer = device::Buffer::floats(values.size() + skipped, device::Space::device);
    device::copy(queue, values.data(), device::Space::host, buffer.f32() + skipped, device::Space::device,
                 values.size() * sizeof(float));
    return buffer;
  };
  const auto on_a = up(a, 0), on_b = up(b, 0), on_c = device::Buffer::floats(naive::at(m * n), device::Space::device);
  const auto backend = make_device_backend({});
  for (const std::size_t skipped : {0, 1, 2, 3}) {
    const auto on_bias = up(bias, skipped);
    backend->gemm(queue, m, n, k, on_a.f32(), Transpose::no, on_b.f32(), Transpose::no, on_c.f32(), Accumulate::no,
                  on_bias.f32() + skipped);
    naive::Floats c(naive::at(m * n));
    device::copy(queue, on_c.data(), device::Space::device, c.data(), device::Space::host, c.size() * sizeof(float));
    queue.wait();
    EXPECT_LT(naive::relative_error(c, expected), 1e-5) << skipped;
  }
}
#endif

}  // namespace
}  // namespace seer::dnn
