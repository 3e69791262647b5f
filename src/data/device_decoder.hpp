// SPDX-License-Identifier: Apache-2.0
// JPEG files decoded by the device itself, where the build has a library for that (data.decode = "auto"). What it does
// not take, or fails on, is the host's.
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
    bool done = false;  ///< set where the pixels are there
  };
  virtual ~DeviceDecoder() = default;
  /// The size of an image that it takes; nullopt: one for the host. Many threads, each with its own `worker` number.
  virtual std::optional<Size> takes(std::span<const std::uint8_t> bytes, std::int64_t max_pixels,
                                    std::size_t worker) = 0;
  /// All together; waits for them. One thread at a time. Error(device) only where the device itself fails.
  virtual void decode(std::span<Job> jobs) = 0;
};

/// For so many workers and at most so many images at a time; nullptr, and why, where there is none.
std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t workers, std::int64_t most_images, std::string& why_not);

}  // namespace seer::data
