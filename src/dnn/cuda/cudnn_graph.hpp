// SPDX-License-Identifier: Apache-2.0
// The part of cuDNN's graph API that this program needs: a graph of one operation, the engines that cuDNN proposes for
// it, and plans that run. The only code that calls cudnnBackend*.
#pragma once

#include <cudnn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "seer/base/dtype.hpp"
#include "seer/device/cuda.hpp"
#include "seer/dnn/backend.hpp"

namespace seer::dnn::cudnn {

/// An error reported by cuDNN; the back end's interface turns it into Error(device) with the shape.
class Failure : public std::runtime_error {
 public:
  Failure(cudnnStatus_t failed, const std::string& what) : std::runtime_error(what), status(failed) {}
  /// True if this engine or type cannot do it but another one may.
  bool unsupported() const { return status / 1000 == 3 || status / 1000 == 2; }
  std::string remedy() const;
  cudnnStatus_t status;
};

/// Throws Failure naming the call, the status and cuDNN's own message.
void check(cudnnStatus_t status, const char* call);

/// A backend descriptor: owned, move-only.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  cudnnBackendDescriptor_t raw() const { return raw_.get(); }

  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values);
  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const T& value) {
    return set(name, type, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, std::int64_t value) { return set(name, CUDNN_TYPE_INT64, value); }
  Descriptor& set(cudnnBackendAttributeName_t name, const std::vector<std::int64_t>& values) {
    return set(name, CUDNN_TYPE_INT64, std::ssize(values), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, value.raw());
  }
  Descriptor& finalize();

  /// Returns the number of values of an attribute; writes at most `room` of them to `values`.
  std::int64_t get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t room,
                   void* values) const;
  template <class T>
  T get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type) const {
    T value{};
    get(name, type, 1, &value);
    return value;
  }

 private:
  device::Owned<cudnnBackendDescriptor_t, cudnnBackendDestroyDescriptor> raw_;
};

/// Where a graph will run: on the handle's device or, in tests, on a described device that is not present
/// (CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, cuDNN 9.8); everything but execution works for it.
struct Target {
  cudnnHandle_t handle = nullptr;
  const Descriptor* properties = nullptr;
};

/// A tensor of a graph. Dimensions in cuDNN's order: N, C, H, W, or K, C / groups, R, S.
struct TensorSpec {
  std::int64_t id = 0;
  DType type = DType::f32;
  std::vector<std::int64_t> dims, strides;
  std::int64_t alignment_bytes = 16;  ///< of the pointers passed to it
};

TensorSpec activation(std::int64_t id, DType type, device::Shape shape, std::int64_t alignment_bytes = 16);
/// In KRSC: input channels fastest, as in NHWC.
TensorSpec weights(std::int64_t id, DType type, const ConvShape& shape, std::int64_t alignment_bytes = 16);

/// A finalised operation graph and its parts.
class Graph {
 public:
  /// `x`: source or its gradient; `y`: destination or its gradient; `w`: weights or their gradient.
  static Graph convolution(Target target, Direction direction, const ConvShape& shape, const TensorSpec& x,
                           const TensorSpec& w, const TensorSpec& y);

  const Target& target() const { return target_; }
  const Descriptor& raw() const { return graph_; }

 private:
  Graph(Target target, std::vector<Descriptor> parts);  // the last part is the operation

  Target target_;
  std::vector<Descriptor> parts_;
  Descriptor graph_;
};

/// A proposed engine with its knobs. The name is the same wherever cuDNN's version and device are the same.
struct EngineConfig {
  Descriptor config;
  std::string name;         ///< "eng37,k2=5,k13=2"
  std::int64_t number = 0;  ///< 37
  std::vector<cudnnBackendNumericalNote_t> notes;
  std::size_t workspace_bytes = 0;  ///< estimate, as far as known before the plan exists
  bool has(cudnnBackendNumericalNote_t note) const { return std::ranges::find(notes, note) != notes.end(); }
};

/// The engines that cuDNN proposes, in the order of its own estimates; empty if it knows none.
std::vector<EngineConfig> propose(const Graph& graph, cudnnBackendHeurMode_t mode, std::int64_t at_most);

/// An engine ready to run.
class Plan {
 public:
  struct Argument {
    std::int64_t id;
    const void* data;
  };
  Plan() = default;
  /// Throws Failure if the engine cannot run it after all: cuDNN reports some refusals only here.
  Plan(Target target, const EngineConfig& config);
  std::size_t workspace_bytes() const { return workspace_bytes_; }
  explicit operator bool() const { return plan_.raw() != nullptr; }
  /// Runs on the handle's stream.
  void run(cudnnHandle_t handle, const std::vector<Argument>& arguments, void* workspace) const;

 private:
  Descriptor plan_;
  std::size_t workspace_bytes_ = 0;
};

}  // namespace seer::dnn::cudnn
