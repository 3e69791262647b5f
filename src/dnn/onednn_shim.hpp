// SPDX-License-Identifier: Apache-2.0
// The one place that knows which oneDNN this is: 2.x makes a primitive descriptor from an operation descriptor, 3.x
// from the arguments themselves.
#pragma once

#include <dnnl.hpp>

namespace seer::dnn::shim {

/// The memory descriptors and geometry that all three directions of a convolution share.
struct ConvDescs {
  dnnl::memory::desc src, weights, dst;
  dnnl::memory::dims strides, pads;
};

using Forward = dnnl::convolution_forward;
using BackwardData = dnnl::convolution_backward_data;
using BackwardWeights = dnnl::convolution_backward_weights;

#if DNNL_VERSION_MAJOR >= 3

inline Forward::primitive_desc forward(const dnnl::engine& engine, const ConvDescs& d,
                                       const dnnl::primitive_attr& attr) {
  return {engine,
          dnnl::prop_kind::forward_training,
          dnnl::algorithm::convolution_direct,
          d.src,
          d.weights,
          d.dst,
          d.strides,
          d.pads,
          d.pads,
          attr};
}
inline BackwardData::primitive_desc backward_data(const dnnl::engine& engine, const ConvDescs& d,
                                                  const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, d, attr);
  return {engine, dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads, hint, attr};
}
inline BackwardWeights::primitive_desc backward_weights(const dnnl::engine& engine, const ConvDescs& d,
                                                        const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, d, attr);
  return {engine, dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads, hint, attr};
}

#else

inline Forward::primitive_desc forward(const dnnl::engine& engine, const ConvDescs& d,
                                       const dnnl::primitive_attr& attr) {
  return {{dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides,
           d.pads, d.pads},
          attr,
          engine};
}
inline BackwardData::primitive_desc backward_data(const dnnl::engine& engine, const ConvDescs& d,
                                                  const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, d, attr);
  return {
      {dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads}, attr, engine, hint};
}
inline BackwardWeights::primitive_desc backward_weights(const dnnl::engine& engine, const ConvDescs& d,
                                                        const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, d, attr);
  return {
      {dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads}, attr, engine, hint};
}

#endif

/// The status' name, for messages.
inline const char* status_name(dnnl_status_t status) {
  switch (status) {
    case dnnl_success:
      return "success";
    case dnnl_out_of_memory:
      return "out of memory";
    case dnnl_invalid_arguments:
      return "invalid arguments";
    case dnnl_unimplemented:
      return "unimplemented";
    case dnnl_runtime_error:
      return "runtime error";
    case dnnl_not_required:
      return "not required";
    default:
      return "unknown status";
  }
}

}  // namespace seer::dnn::shim
