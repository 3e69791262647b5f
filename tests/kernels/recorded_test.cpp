// SPDX-License-Identifier: Apache-2.0
// Assignment and update as a recorded piece of work (device/graph.hpp): on the host, and with a key's first call, they
// run as they are; replays must leave the same bits. Device builds only; elsewhere nothing is recorded.
#include "mirrored_kernels.hpp"

#if defined(SEER_CUDA)
#include <functional>
#include <utility>
#include <vector>

#include "kernel_test.hpp"
#include "seer/device/graph.hpp"
#include "seer/device/ledger.hpp"
#include "seer/device/memory.hpp"

namespace seer::kernels {
namespace {

using test::at;
using test::Shape;

class Recorded : public testing::Test {
 protected:
  void SetUp() override {
    SEER_NEEDS_SPACE(test::Space::device);
    stream = std::make_unique<device::DeviceQueue>();
  }
  template <class T>
  T* room(std::size_t count) {
    buffers.emplace_back(count * sizeof(T), device::Space::device);
    return static_cast<T*>(buffers.back().data());
  }
  template <class T>
  void give(const std::vector<T>& values, T* to) {
    device::copy(stream->queue(), values.data(), device::Space::host, to, device::Space::device,
                 values.size() * sizeof(T));
    stream->queue().wait();
  }
  template <class T>
  std::vector<T> read(const T* from, std::size_t count) {
    std::vector<T> values(count);
    device::copy(stream->queue(), from, device::Space::device, values.data(), device::Space::host, count * sizeof(T));
    stream->queue().wait();
    return values;
  }
  std::unique_ptr<device::DeviceQueue> stream;
  std::vector<device::Buffer> buffers;
};

TEST_F(Recorded, AssignmentReplaysToTheLastBit) {
  const Shape s{70, 1, 1, 3000};
  const std::size_t count = at(s.elems());
  const Tensor scores{room<float>(count), s, DType::f32, device::Space::device};
  const Tensor q{room<float>(count), s, DType::f32, device::Space::device};
  float* const largest = room<float>(1);
  double *const sum = room<double>(1), *const sums = room<double>(at(s.c));
  double* const trouble = room<double>(1);
  device::Queue& queue = stream->queue();
  const auto assign = [&] {
    maximum(queue, scores, largest);
    sinkhorn_exponentials(queue, scores, largest, 0.05F, q, sum);
    sinkhorn_divide(queue, q, sum, trouble);
    for (int i = 0; i < 3; ++i) {
      sinkhorn_prototype_sums(queue, q, sums);
      sinkhorn_factors(queue, sums, s.c, trouble);
      sinkhorn_scale(queue, q, sums, i == 2 ? 1.0 : 1.0 / 70);
    }
  };
  device::Repeated repeated;
  for (std::uint64_t update = 0; update < 4; ++update) {
    give(test::hash_fill(count, update + 1, 0.9), scores.f32());
    assign();
    const std::vector<float> wanted = read(q.f32(), count);
    fill(queue, q, -1);
    repeated.run(queue, device::GraphKey{}.add(scores).add(q), assign);
    EXPECT_EQ(read(q.f32(), count), wanted) << "update " << update;
  }
  EXPECT_EQ(repeated.recorded(), 1U);
  EXPECT_EQ(read(trouble, 1).front(), 0);
}

// The rate changes from update to update: it lies with the kernels.
TEST_F(Recorded, UpdateReplaysWithANewRate) {
  const std::size_t count = 200003;
  const std::vector<Range> ranges{{0, 65537}, {65540, 65541}, {65600, 200003}};
  const FlatRanges table(device::Space::device, ranges);
  float *const p = room<float>(count), *const g = room<float>(count), *const m = room<float>(count);
  double *const squares = room<double>(3), *const gradient_squares = room<double>(3);
  auto* const rule = room<UpdateRule>(1);
  device::Queue& queue = stream->queue();
  const auto update = [&] {
    squared_norms(queue, table, p, squares);
    squared_norms(queue, table, g, gradient_squares);
    optimizer_update(queue, table, nullptr, squares, gradient_squares, rule, g, m, p);
  };
  give(test::hash_fill(count, 1, 2), p);
  device::Repeated repeated;
  for (std::uint64_t step = 0; step < 4; ++step) {
    give(test::hash_fill(count, step + 2, 0.1), g);
    give(std::vector<UpdateRule>{{.lr = 0.1F * static_cast<float>(step + 1), .weight_decay = 1e-3F}}, rule);
    const std::vector<float> before_p = read(p, count), before_m = read(m, count);
    update();
    const std::vector<float> wanted_p = read(p, count), wanted_m = read(m, count);
    give(before_p, p);
    give(before_m, m);
    repeated.run(queue, device::GraphKey{}.add(p).add(g).add(m), update);
    EXPECT_EQ(read(p, count), wanted_p) << "step " << step;
    EXPECT_EQ(read(m, count), wanted_m) << "step " << step;
    EXPECT_NE(wanted_p, before_p);
  }
  EXPECT_EQ(repeated.recorded(), 1U);
}

/// What a kernel tells a planned machine of its launches.
class LaunchLedger final : public device::NullLedger {
 public:
  void work(const device::Work& work) override { launches += work.launches; }
  int launches = 0;
};

// docs/device.md counts launches on a planned machine: they are those a device is handed.
TEST_F(Recorded, LaunchesAreAsManyAsPlanned) {
  const Shape s{4, 6, 6, 37}, per_image{4, 1, 1, 37};
  const auto tensor = [&](Shape shape) {
    return Tensor{room<float>(at(shape.elems())), shape, DType::bf16, device::Space::device};
  };
  const auto wide = [&](Shape shape) {
    return Tensor{room<float>(at(shape.elems())), shape, DType::f32, device::Space::device};
  };
  const Tensor x = tensor(s), y = tensor(s), out = tensor(s), image = wide(per_image), rows = wide({144, 1, 1, 37}),
               other_rows = wide({144, 1, 1, 37});
  float* const c = room<float>(37);
  double* const sums = room<double>(200);
  double* const trouble = room<double>(1);
  const BatchNorm bn{c, c, c, c};
  const FlatRanges table(device::Space::device, std::vector<Range>{{0, 37}, {37, 5000}});
  auto* const rule = room<UpdateRule>(1);
  const std::pair<const char*, std::function<void(Queue&)>> calls[] = {
      {"relu", [&](Queue& q) { relu(q, rows); }},
      {"add", [&](Queue& q) { add(q, x, y); }},
      {"cast",
       [&](Queue& q) {
         cast(q, rows, Tensor{x.data, rows.shape, DType::bf16, x.space});
       }},
      {"bias_gradient", [&](Queue& q) { bias_gradient(q, rows, c); }},
      {"global_average_pool", [&](Queue& q) { global_average_pool(q, x, image); }},
      {"global_average_pool_backward", [&](Queue& q) { global_average_pool_backward(q, image, x); }},
      {"l2_normalize", [&](Queue& q) { l2_normalize(q, rows, other_rows, rows.f32()); }},
      {"batchnorm_sums", [&](Queue& q) { batchnorm_sums(q, x, sums); }},
      {"batchnorm_statistics", [&](Queue& q) { batchnorm_statistics(q, 37, sums, 1e-5F, c, c); }},
      {"batchnorm_apply", [&](Queue& q) { batchnorm_apply(q, x, bn, Relu::yes, y); }},
      {"batchnorm_relu_pool", [&](Queue& q) { batchnorm_relu_pool(q, x, bn, image, rows.f32()); }},
      {"batchnorm_relu_gate", [&](Queue& q) { batchnorm_relu_gate(q, x, bn, image, y); }},
      {"batchnorm_add_relu", [&](Queue& q) { batchnorm_add_relu(q, x, bn, y, &bn, out); }},
      {"gate_backward", [&](Queue& q) { gate_backward(q, x, bn, y, image, rows.f32()); }},
      {"batchnorm_backward_sums, gated",
       [&](Queue& q) {
         const float* const v = rows.f32();
         batchnorm_backward_sums(q, x, bn, {y, Relu::yes, v, v, v, v}, sums);
       }},
      {"batchnorm_backward_sums", [&](Queue& q) { batchnorm_backward_sums(q, x, bn, {.d_y = y}, sums); }},
      {"add_relu_backward_sums", [&](Queue& q) { add_relu_backward_sums(q, out, y, x, bn, sums, &x, &bn, sums + 80); }},
      {"batchnorm_parameter_gradients", [&](Queue& q) { batchnorm_parameter_gradients(q, 37, sums, c, c, c); }},
      {"batchnorm_backward_apply",
       [&](Queue& q) { batchnorm_backward_apply(q, x, bn, {.d_y = y, .relu = Relu::yes}, sums, 144, out); }},
      {"squared_norms", [&](Queue& q) { squared_norms(q, table, rows.f32(), sums); }},
      {"optimizer_update",
       [&](Queue& q) {
         optimizer_update(q, table, nullptr, sums, sums, rule, rows.f32(), other_rows.f32(), other_rows.f32(), sums);
       }},
      {"optimizer_update without the next squares",
       [&](Queue& q) {
         optimizer_update(q, table, nullptr, sums, sums, rule, rows.f32(), other_rows.f32(), other_rows.f32());
       }},
      {"first_beyond",
       [&](Queue& q) { first_beyond(q, rows.f32(), rows.elems(), 1, reinterpret_cast<std::int64_t*>(sums)); }},
      {"normalize_rows", [&](Queue& q) { normalize_rows(q, rows); }},
      {"maximum", [&](Queue& q) { maximum(q, rows, c); }},
      {"sinkhorn_exponentials", [&](Queue& q) { sinkhorn_exponentials(q, rows, c, 0.05F, other_rows, sums); }},
      {"sinkhorn_divide", [&](Queue& q) { sinkhorn_divide(q, rows, sums, trouble); }},
      {"sinkhorn_prototype_sums", [&](Queue& q) { sinkhorn_prototype_sums(q, rows, sums); }},
      {"sinkhorn_factors", [&](Queue& q) { sinkhorn_factors(q, sums, 37, trouble); }},
      {"sinkhorn_scale", [&](Queue& q) { sinkhorn_scale(q, rows, sums, 1); }},
      {"swav_cross_entropy", [&](Queue& q) { swav_cross_entropy(q, rows, other_rows, 1, 0.1F, 1, rows, sums); }},
      {"add_predictions", [&](Queue& q) { add_predictions(q, rows, 0.1F, sums); }},
      {"row_entropies", [&](Queue& q) { row_entropies(q, rows, sums); }},
      {"sinkhorn_repair", [&](Queue& q) { sinkhorn_repair(q, rows, sums); }},
      {"sinkhorn_any_empty", [&](Queue& q) { sinkhorn_any_empty(q, sums, 37, trouble); }},
  };
  for (const auto& [name, call] : calls) {
    LaunchLedger ledger;
    Queue planned = Queue::planned(ledger);
    call(planned);
    call(stream->queue());  // scratch memory is taken
    device::Recording recording(stream->queue());
    call(stream->queue());
    EXPECT_EQ(static_cast<int>(recording.end().steps()), ledger.launches) << name;
  }
}

}  // namespace
}  // namespace seer::kernels
#endif
