// SPDX-License-Identifier: Apache-2.0
// The device implementation of dnn::Backend: cuDNN's graph API and cuBLASLt.
//
// When a convolution shape is first met, its engines are timed and the choice is saved on disk. All ranks must run the
// same engine, and a resumed run should too, because the engine determines the bits of the result.
#pragma once

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "seer/dnn/backend.hpp"

namespace seer::dnn {

struct DeviceOptions {
  /// Multiplies floats on tensor cores, with operands rounded to 10 fraction bits.
  bool tf32 = false;
  /// Only engines that give the same bits every time.
  bool deterministic = false;
  /// True: engines are timed. False: each call takes the first engine that works, in the order of the libraries'
  /// heuristics. This costs no time and, without `agree`, gives the same choice on all ranks without communication.
  bool measured = true;
  /// True: gradients of weights are never rounded to half precision, as on the host. cuDNN has no engine that leaves
  /// them in float, so operands are widened to float, which costs about two passes over them and runs at TF32's rate
  /// (exact: bf16 and f16 fit into TF32). False: they may be rounded once per call (once per piece if the batch is
  /// split), where that is faster; apex O1 and PyTorch's autocast always round.
  bool float_weight_gradients = false;
  /// Upper limit on the scratch memory of a call, including copies of operands.
  std::size_t workspace_bytes = std::size_t{1} << 30;
  /// Folder of the file of choices ("dnn_choices.json"), read by later runs; "" saves nothing.
  std::string cache_dir = {};
  /// Whether this process writes that file; one process of a job is enough.
  bool writes_cache = true;
  /// Takes this rank's text and returns the root's on all ranks: a broadcast. Called once per new shape, so all ranks
  /// must meet the same shapes in the same order. Empty: this rank decides alone.
  std::function<std::string(const std::string&)> agree = {};
  /// Limit on packed copies of weights kept between calls.
  std::size_t packed_weights_bytes = std::numeric_limits<std::size_t>::max();
};

/// The back end for this space. Host: oneDNN; the options have no effect. Device: in a host build, the stand-in device.
std::unique_ptr<Backend> make_backend(device::Space space, DeviceOptions options = {});

/// Upper limit, in bytes, on the device's packed copies of one convolution's weights (for set_packed_weights_limit),
/// for activations of `type`; 0 if the weights are used in place. Does not depend on number or size of images. In half
/// precision, if the channels of a group are not a multiple of 8, there are two copies, one of them padded: each
/// direction and crop size chooses one of the two. Also available in host builds.
std::size_t packed_weight_bytes(const ConvShape& shape, DType type);

#if defined(SEER_CUDA)
/// Uses the calling thread's current device. Throws Error(device), one line, if the cuDNN found at run time is too old.
/// If calls come on more than one queue, waits order them.
std::unique_ptr<Backend> make_device_backend(DeviceOptions options = {});
#endif

}  // namespace seer::dnn
