// SPDX-License-Identifier: Apache-2.0
// The only file that depends on the version of oneDNN: 2.x makes a primitive descriptor from an operation descriptor,
// 3.x from the arguments directly.
#pragma once

#include <dnnl.hpp>

#include "seer/base/dtype.hpp"

namespace seer::dnn::shim {

inline dnnl::memory::data_type data_type(DType type) {
  switch (type) {
    case DType::f32:
      return dnnl::memory::data_type::f32;
    case DType::bf16:
      return dnnl::memory::data_type::bf16;
    case DType::f16:
      return dnnl::memory::data_type::f16;
    default:
      return dnnl::memory::data_type::undef;
  }
}

/// The memory descriptors and geometry that all three directions of a convolution share.
struct ConvDescs {
  dnnl::memory::desc src, weights, dst;
  dnnl::memory::dims strides, pads;
  dnnl::memory::desc forward_weights;  ///< for the forward pass that backwards refer to; of the type of src
};

inline ConvDescs forward_of(const ConvDescs& d) {
  ConvDescs out = d;
  out.weights = d.forward_weights;
  return out;
}

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
  const auto hint = forward(engine, forward_of(d), attr);
  return {engine, dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads, hint, attr};
}
inline BackwardWeights::primitive_desc backward_weights(const dnnl::engine& engine, const ConvDescs& d,
                                                        const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, forward_of(d), attr);
  return {engine, dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads, hint, attr};
}

inline dnnl::matmul::primitive_desc matmul(const dnnl::engine& engine, const dnnl::memory::desc& a,
                                           const dnnl::memory::desc& b, const dnnl::memory::desc& c,
                                           const dnnl::primitive_attr& attr) {
  return {engine, a, b, c, attr};
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
  const auto hint = forward(engine, forward_of(d), attr);
  return {
      {dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads}, attr, engine, hint};
}
inline BackwardWeights::primitive_desc backward_weights(const dnnl::engine& engine, const ConvDescs& d,
                                                        const dnnl::primitive_attr& attr) {
  const auto hint = forward(engine, forward_of(d), attr);
  return {
      {dnnl::algorithm::convolution_direct, d.src, d.weights, d.dst, d.strides, d.pads, d.pads}, attr, engine, hint};
}

inline dnnl::matmul::primitive_desc matmul(const dnnl::engine& engine, const dnnl::memory::desc& a,
                                           const dnnl::memory::desc& b, const dnnl::memory::desc& c,
                                           const dnnl::primitive_attr& attr) {
  return {{a, b, c}, attr, engine};
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
