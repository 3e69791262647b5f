// SPDX-License-Identifier: Apache-2.0
// The device's body of dnn::Backend: cuDNN's graph API and cuBLASLt.
//
// Which engine runs a convolution is measured when its shape is first met, and kept on disk. All ranks must run the
// same one, and a rank that goes on from a checkpoint should: the measurement decides over bits.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "seer/dnn/backend.hpp"

namespace seer::dnn {

struct DeviceOptions {
  /// Products of floats on tensor cores, their operands rounded to 10 bits of fraction.
  bool tf32 = false;
  /// Only engines that give the same bits every time.
  bool deterministic = false;
  /// Whether engines are timed. Else each call takes the first that can do it in the order of the libraries'
  /// heuristics: at once, and the same on all ranks without a word between them.
  bool measured = true;
  /// Gradients of weights in half precision are never rounded to it, as on the host. cuDNN has no engine that leaves
  /// them so: operands are widened to float, which costs about two passes over them and runs at TF32's rate (exactly:
  /// bf16 and f16 fit into TF32). False: they may be rounded once per call, in pieces once a piece, where that is
  /// faster; apex O1 and PyTorch's autocast always do.
  bool float_weight_gradients = false;
  /// Scratch memory of a call, copies of operands included; more is never asked for.
  std::size_t workspace_bytes = std::size_t{1} << 30;
  /// Where choices are kept from one run to the next ("dnn_choices.json"); "" keeps none.
  std::string cache_dir = {};
  /// Whether this process writes that file: one of a job's is enough.
  bool writes_cache = true;
  /// Gets this rank's text and gives back the root's, on all ranks: a broadcast. Called once per new shape, so all
  /// ranks must meet the same shapes in the same order. Empty: this rank decides for itself.
  std::function<std::string(const std::string&)> agree = {};
  /// Of packed copies of weights kept between calls.
  std::size_t packed_weights_bytes = std::numeric_limits<std::size_t>::max();
};

/// The library that computes there. Host: oneDNN, and the options are without effect. Device: in a host build the
/// stand-in for one.
std::unique_ptr<Backend> make_backend(device::Space space, DeviceOptions options = {});

#if defined(SEER_CUDA)
/// On the calling thread's present device. Error(device) in one line where the cuDNN found when the program runs will
/// not do. Calls on more than one queue are put in order by waiting.
std::unique_ptr<Backend> make_device_backend(DeviceOptions options = {});
#endif

}  // namespace seer::dnn
