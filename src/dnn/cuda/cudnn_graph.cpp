// SPDX-License-Identifier: Apache-2.0
#include "cudnn_graph.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace seer::dnn::cudnn {
namespace {

cudnnDataType_t data_type(DType type) {
  return type == DType::f32    ? CUDNN_DATA_FLOAT
         : type == DType::bf16 ? CUDNN_DATA_BFLOAT16
         : type == DType::f16  ? CUDNN_DATA_HALF
                               : CUDNN_DATA_UINT8;
}

Descriptor tensor(const TensorSpec& spec) {
  Descriptor made(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  made.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, data_type(spec.type))
      .set(CUDNN_ATTR_TENSOR_DIMENSIONS, spec.dims)
      .set(CUDNN_ATTR_TENSOR_STRIDES, spec.strides)
      .set(CUDNN_ATTR_TENSOR_UNIQUE_ID, spec.id)
      .set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, spec.alignment_bytes)
      .finalize();
  return made;
}

#if CUDNN_VERSION >= 90800
constexpr auto kHeuristicDevice = CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, kPlanDevice = CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP;
#else
constexpr auto kHeuristicDevice = cudnnBackendAttributeName_t{}, kPlanDevice = kHeuristicDevice;
#endif
/// Names the target's described device, if it has one.
void set_device(Descriptor& descriptor, cudnnBackendAttributeName_t name, const Target& target) {
  if (target.properties != nullptr) descriptor.set(name, *target.properties);
}

/// Fills in the engine's number, its knobs and the notes on its arithmetic.
void describe(EngineConfig& proposal) {
  Descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  auto raw = engine.raw();
  proposal.config.get(CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  proposal.number = engine.get<std::int64_t>(CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64);
  proposal.name = fmt::format("eng{}", proposal.number);
  try {
    proposal.workspace_bytes = static_cast<std::size_t>(
        proposal.config.get<std::int64_t>(CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, CUDNN_TYPE_INT64));
  } catch (const Failure& failure) {
    if (!failure.unsupported()) throw;  // making the plan will report it
  }

  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  const auto count =
      engine.get(CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, std::ssize(notes), notes.data());
  proposal.notes.assign(notes.begin(), notes.begin() + std::min(count, std::ssize(notes)));

  std::vector<Descriptor> knobs;
  std::vector<cudnnBackendDescriptor_t> raw_knobs;
  for (int i = 0; i < CUDNN_KNOB_TYPE_COUNTS; ++i)
    raw_knobs.push_back(knobs.emplace_back(CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR).raw());
  const auto chosen = proposal.config.get(CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                          std::ssize(raw_knobs), raw_knobs.data());
  std::vector<std::pair<int, std::int64_t>> values;
  for (std::int64_t i = 0; i < std::min(chosen, std::ssize(knobs)); ++i) {
    const auto& knob = knobs[static_cast<std::size_t>(i)];
    values.emplace_back(
        static_cast<int>(knob.get<cudnnBackendKnobType_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE)),
        knob.get<std::int64_t>(CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64));
  }
  std::sort(values.begin(), values.end());
  for (const auto& [type, value] : values) proposal.name += fmt::format(",k{}={}", type, value);
}

}  // namespace

std::string Failure::remedy() const {
  switch (status) {
    case CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING:
      return "add libnvrtc of the CUDA version that seer was built with to LD_LIBRARY_PATH";
    case CUDNN_STATUS_NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE:
    case CUDNN_STATUS_SUBLIBRARY_VERSION_MISMATCH:
      return "put all libraries of one cuDNN version in LD_LIBRARY_PATH";
    case CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED:
      return "use a smaller batch or smaller crops";
    default:
      return "";
  }
}

void check(cudnnStatus_t status, const char* call) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char words[512] = "";
  cudnnGetLastErrorString(words, sizeof words);
  throw Failure(status, fmt::format("cuDNN: {} in {}{}{}", cudnnGetErrorString(status), call,
                                    words[0] != '\0' ? ": " : "", words));
}

Descriptor::Descriptor(cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t raw = nullptr;
  check(cudnnBackendCreateDescriptor(type, &raw), "cudnnBackendCreateDescriptor");
  raw_.reset(raw);
}

Descriptor& Descriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                            const void* values) {
  check(cudnnBackendSetAttribute(raw(), name, type, count, values), "cudnnBackendSetAttribute");
  return *this;
}
Descriptor& Descriptor::finalize() {
  check(cudnnBackendFinalize(raw()), "cudnnBackendFinalize");
  return *this;
}
std::int64_t Descriptor::get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t room,
                             void* values) const {
  std::int64_t count = 0;
  check(cudnnBackendGetAttribute(raw(), name, type, room, &count, values), "cudnnBackendGetAttribute");
  return count;
}

TensorSpec activation(std::int64_t id, DType type, device::Shape s, std::int64_t alignment_bytes) {
  return {id, type, {s.n, s.c, s.h, s.w}, {s.h * s.w * s.c, 1, s.w * s.c, s.c}, alignment_bytes};
}

TensorSpec weights(std::int64_t id, DType type, const ConvShape& s, std::int64_t alignment_bytes) {
  const std::int64_t c = s.c_in / s.groups, k = s.kernel;
  return {id, type, {s.c_out, c, k, k}, {c * k * k, 1, k * c, c}, alignment_bytes};
}

Graph::Graph(Target target, std::vector<Descriptor> parts)
    : target_(target), parts_(std::move(parts)), graph_(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
  graph_.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, parts_.back());
  if (target.handle != nullptr) graph_.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
  graph_.finalize();
}

Graph Graph::convolution(Target target, Direction direction, const ConvShape& s, const TensorSpec& x,
                         const TensorSpec& w, const TensorSpec& y) {
  std::vector<Descriptor> parts;
  parts.push_back(tensor(x));
  parts.push_back(tensor(w));
  parts.push_back(tensor(y));
  Descriptor& conv = parts.emplace_back(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  conv.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT)  // type of the sums
      .set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, CUDNN_CROSS_CORRELATION)
      .set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 2)
      .set(CUDNN_ATTR_CONVOLUTION_DILATIONS, {1, 1})
      .set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, {s.stride, s.stride})
      .set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, {s.pad, s.pad})
      .set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, {s.pad, s.pad})
      .finalize();
  struct Names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t conv, x, w, y, alpha, beta;
  };
  constexpr Names kNames[] = {
      // by direction
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
      {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
  const Names& names = kNames[static_cast<int>(direction)];
  Descriptor operation(names.type);
  operation.set(names.conv, parts[3])
      .set(names.x, parts[0])
      .set(names.w, parts[1])
      .set(names.y, parts[2])
      .set(names.alpha, CUDNN_TYPE_FLOAT, 1.0F)
      .set(names.beta, CUDNN_TYPE_FLOAT, 0.0F)
      .finalize();
  parts.push_back(std::move(operation));
  return Graph(target, std::move(parts));
}

std::vector<EngineConfig> propose(const Graph& graph, cudnnBackendHeurMode_t mode, std::int64_t at_most) {
  Descriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph.raw())
      .set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, mode);
  set_device(heuristic, kHeuristicDevice, graph.target());
  std::vector<EngineConfig> proposals;
  try {
    heuristic.finalize();
  } catch (const Failure& failure) {
    if (failure.unsupported()) return proposals;
    throw;
  }
  std::vector<cudnnBackendDescriptor_t> raw;
  for (std::int64_t i = 0; i < at_most; ++i)
    raw.push_back((proposals.emplace_back().config = Descriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)).raw());
  const auto found = heuristic.get(CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, at_most, raw.data());
  proposals.resize(static_cast<std::size_t>(std::min(found, at_most)));
  for (auto& proposal : proposals) describe(proposal);
  return proposals;
}

Plan::Plan(Target target, const EngineConfig& config) : plan_(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
  plan_.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config.config);
  if (target.handle != nullptr) plan_.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, target.handle);
  set_device(plan_, kPlanDevice, target);
  plan_.finalize();
  workspace_bytes_ =
      static_cast<std::size_t>(plan_.get<std::int64_t>(CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64));
}

void Plan::run(cudnnHandle_t handle, const std::vector<Argument>& arguments, void* workspace) const {
  std::vector<std::int64_t> ids;
  std::vector<void*> data;
  for (const auto& argument : arguments) {
    ids.push_back(argument.id);
    data.push_back(const_cast<void*>(argument.data));
  }
  Descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, ids)
      .set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, std::ssize(data), data.data())
      .set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, workspace)
      .finalize();
  check(cudnnBackendExecute(handle, plan_.raw(), pack.raw()), "cudnnBackendExecute");
}

}  // namespace seer::dnn::cudnn
