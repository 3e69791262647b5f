// SPDX-License-Identifier: Apache-2.0
// Replaces src/data/cuda/nvjpeg.cpp in builds without nvJPEG.
#include "device_decoder.hpp"

#if !defined(SEER_NVJPEG)
namespace seer::data {

std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t, std::int64_t, std::string& why_not) {
#if defined(SEER_CUDA)
  why_not = "this build has no nvJPEG (configure found no nvjpeg.h or libnvjpeg; NVJPEG_ROOT)";
#else
  why_not = "this is a host build";
#endif
  return nullptr;
}

}  // namespace seer::data
#endif
