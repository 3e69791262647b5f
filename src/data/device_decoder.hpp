// SPDX-License-Identifier: Apache-2.0
// Decodes JPEG files on the device, if the build has a library for that (data.decode = "auto"). The host decodes the
// files that the device does not support or fails on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace seer::data {

class DeviceDecoder {
 public:
  struct Size {
    std::int64_t width = 0, height = 0;
  };
  struct Job {
    std::span<const std::uint8_t> bytes;
    void* to = nullptr;  ///< on the device: 3 * width * height bytes, R, G, B interleaved
    Size size;
    bool done = false;  ///< set to true if decoding succeeded
  };
  virtual ~DeviceDecoder() = default;
  /// Returns the size of an image that the device can decode; nullopt: the host must decode it. Many threads may call
  /// it at a time, each with its own `worker` number.
  virtual std::optional<Size> takes(std::span<const std::uint8_t> bytes, std::int64_t max_pixels,
                                    std::size_t worker) = 0;
  /// Decodes all jobs together and waits for them. One thread at a time. Error(device) only if the device itself fails.
  virtual void decode(std::span<Job> jobs) = 0;
};

/// Makes a decoder for `workers` workers and at most `most_images` images at a time. Returns nullptr and sets `why_not`
/// if there is none.
std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t workers, std::int64_t most_images, std::string& why_not);

}  // namespace seer::data
