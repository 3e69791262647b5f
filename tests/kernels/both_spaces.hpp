// SPDX-License-Identifier: Apache-2.0
// Runs a piece of work on the host and on a device and compares what it left. The other suites compare the host's
// results with double; this carries their word over to the device.
// Device builds only.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "device_support.hpp"
#include "kernel_test.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/kernels/activation.hpp"

namespace seer::test {

/// Arrays in a queue's space, and what is read from them at the end.
class Workspace {
 public:
  explicit Workspace(Queue q) : queue(q) {}
  Queue queue;

  template <class T>
  T* given(const std::vector<T>& values) {
    T* const there = room<T>(values.size());
    move(values.data(), device::Space::host, there, queue.space, values.size() * sizeof(T));
    return there;
  }
  template <class T>
  T* room(std::size_t count) {
    buffers_.emplace_back(std::max<std::size_t>(count, 1) * sizeof(T), queue.space);
    return static_cast<T*>(buffers_.back().data());
  }
  Tensor tensor(const Values& values, DType type = DType::f32) {
    const Tensor wide{given(values.data), values.shape, DType::f32, queue.space};
    if (type == DType::f32) return wide;
    const Tensor stored = tensor(values.shape, type);
    kernels::cast(queue, wide, stored);
    return stored;
  }
  Tensor tensor(Shape shape, DType type = DType::f32) {
    return {room<char>(at(shape.elems()) * dtype_bytes(type)), shape, type, queue.space};
  }

  template <class T>
  void keep(const std::string& name, const T* values, std::size_t count) {
    std::vector<T> here(count);
    move(values, queue.space, here.data(), device::Space::host, count * sizeof(T));
    queue.wait();
    kept_.emplace_back(name, std::vector<double>(here.begin(), here.end()));
  }
  void keep(const std::string& name, const Tensor& values) {
    const Tensor wide = tensor(values.shape);
    kernels::cast(queue, values, wide);
    keep(name, wide.f32(), at(values.elems()));
  }
  void keep(const std::string& name, double value) { kept_.emplace_back(name, std::vector<double>{value}); }
  const std::vector<std::pair<std::string, std::vector<double>>>& kept() const { return kept_; }

 private:
  void move(const void* from, device::Space from_space, void* to, device::Space to_space, std::size_t bytes) {
    if (bytes == 0) return;
    const Shape shape{1, 1, 1, static_cast<std::int64_t>(bytes)};
    kernels::copy(queue, {const_cast<void*>(from), shape, DType::u8, from_space}, {to, shape, DType::u8, to_space});
  }
  std::vector<device::Buffer> buffers_;
  std::vector<std::pair<std::string, std::vector<double>>> kept_;
};

/// work(workspace) on the host and twice on a device: the same within the tolerance, and the same bits again.
template <class Work>
void expect_same_on_device(double tolerance, const Work& work) {
  device::DeviceQueue stream;
  Workspace host{Queue{}}, first{stream.queue()}, again{stream.queue()};
  work(host);
  work(first);
  work(again);
  ASSERT_EQ(first.kept().size(), host.kept().size());
  for (std::size_t i = 0; i < host.kept().size(); ++i) {
    const auto& [name, wanted] = host.kept()[i];
    expect_close(first.kept()[i].second, wanted, tolerance, name.c_str());
    EXPECT_EQ(first.kept()[i].second, again.kept()[i].second) << name << ": not the same bits again";
  }
}

}  // namespace seer::test
