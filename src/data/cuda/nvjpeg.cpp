// SPDX-License-Identifier: Apache-2.0
// Decodes JPEG on the device with nvJPEG: with its hardware engine (A100, H100), else with its general decoder if
// batches are large enough to keep that busy. We and the library check every file first, since one bad file fails its
// whole batch. We check each image afterwards, since an engine may skip one without an error.
#include "../device_feed.hpp"

#if defined(SEER_NVJPEG)
#include <fmt/format.h>
#include <nvjpeg.h>

#include <cstring>
#include <map>

#include "../image_codecs.hpp"
#include "seer/base/log.hpp"
#include "seer/device/cuda.hpp"
#include "seer/device/device_queue.hpp"

namespace seer::data {
namespace {

// Below this batch size the general decoder works on the CPU, one image after another.
constexpr std::int64_t kLargeBatch = 51;
// Size in bytes of the mark written at an image's end before decoding. If the mark is still there afterwards, the image
// was not decoded: no image ends in these bytes by chance.
constexpr std::size_t kMark = 64;

const char* name_of(nvjpegStatus_t status) {
  static const std::map<nvjpegStatus_t, const char*> kNames = {
      {NVJPEG_STATUS_SUCCESS, "success"},
      {NVJPEG_STATUS_BAD_JPEG, "bad file"},
      {NVJPEG_STATUS_JPEG_NOT_SUPPORTED, "file not supported"},
      {NVJPEG_STATUS_ALLOCATOR_FAILURE, "out of memory"},
      {NVJPEG_STATUS_EXECUTION_FAILED, "execution failed"},
      {NVJPEG_STATUS_ARCH_MISMATCH, "not on this device"},
      {NVJPEG_STATUS_IMPLEMENTATION_NOT_SUPPORTED, "not in this library"}};
  const auto found = kNames.find(status);
  return found != kNames.end() ? found->second : "error";
}

class NvJpeg final : public DeviceDecoder {
 public:
  NvJpeg(nvjpegHandle_t handle, std::size_t workers, std::int64_t most_images)
      : handle_(handle), marks_(2 * kMark * static_cast<std::size_t>(most_images)) {
    parsers_.resize(workers, nullptr);
    try {
      require(nvjpegJpegStateCreate(handle_, &state_), "nvjpegJpegStateCreate");
      for (auto& parser : parsers_) require(nvjpegJpegStreamCreate(handle_, &parser), "nvjpegJpegStreamCreate");
    } catch (...) {
      destroy();
      throw;
    }
    for (std::size_t i = 0; i < kMark * static_cast<std::size_t>(most_images); ++i)
      mark(0)[i] = static_cast<std::uint8_t>((i * 167 + 89) >> 1 ^ i);
  }
  NvJpeg(const NvJpeg&) = delete;
  NvJpeg& operator=(const NvJpeg&) = delete;
  ~NvJpeg() override { destroy(); }

  std::optional<Size> takes(std::span<const std::uint8_t> bytes, std::int64_t max_pixels, std::size_t worker) override {
    const auto plain = plain_jpeg(bytes);
    if (!plain || plain->width > max_pixels / plain->height) return std::nullopt;
    if (static_cast<std::size_t>(3 * plain->width * plain->height) < kMark) return std::nullopt;
    device::make_current();
    const auto parser = parsers_[worker];
    int refused = 1;  // 0 says yes
    if (nvjpegJpegStreamParse(handle_, bytes.data(), bytes.size(), 0, 0, parser) != NVJPEG_STATUS_SUCCESS ||
        nvjpegDecodeBatchedSupported(handle_, parser, &refused) != NVJPEG_STATUS_SUCCESS || refused != 0)
      return std::nullopt;
    return Size{plain->width, plain->height};
  }

  void decode(std::span<Job> jobs) override {
    if (jobs.empty()) return;
    device::make_current();
    files_.clear();
    lengths_.clear();
    outputs_.clear();
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      const auto& job = jobs[i];
      files_.push_back(job.bytes.data());
      lengths_.push_back(job.bytes.size());
      nvjpegImage_t output{};
      output.channel[0] = static_cast<unsigned char*>(job.to);
      output.pitch[0] = static_cast<std::size_t>(3 * job.size.width);
      outputs_.push_back(output);
      device::check(cudaMemcpyAsync(end_of(job), mark(i), kMark, cudaMemcpyHostToDevice, stream()), "cudaMemcpyAsync");
    }
    const auto status = decode_batch();
    if (status != NVJPEG_STATUS_SUCCESS) {
      prepared_ = 0;
      if (!told_) log::warn(fmt::format("nvJPEG: {}: these images are decoded on the host", nvjpeg_words(status)));
      told_ = true;
      queue_.queue().wait();
      return;
    }
    const std::size_t back = marks_.bytes() / 2;
    for (std::size_t i = 0; i < jobs.size(); ++i)
      device::check(
          cudaMemcpyAsync(mark(0) + back + i * kMark, end_of(jobs[i]), kMark, cudaMemcpyDeviceToHost, stream()),
          "cudaMemcpyAsync");
    queue_.queue().wait();
    for (std::size_t i = 0; i < jobs.size(); ++i)
      jobs[i].done = std::memcmp(mark(i), mark(0) + back + i * kMark, kMark) != 0;
  }

 private:
  static std::string nvjpeg_words(nvjpegStatus_t status) {
    return fmt::format("{} ({})", name_of(status), static_cast<int>(status));
  }
  static void require(nvjpegStatus_t status, const char* call) {
    if (status != NVJPEG_STATUS_SUCCESS)
      throw Error(ExitCode::device, fmt::format("{}: {}", call, nvjpeg_words(status)), "set data.decode = \"host\"");
  }
  nvjpegStatus_t decode_batch() {
    const auto count = static_cast<int>(files_.size());
    if (count != prepared_) {
      const auto status = nvjpegDecodeBatchedInitialize(handle_, state_, count, 1, NVJPEG_OUTPUT_RGBI);
      if (status != NVJPEG_STATUS_SUCCESS) return status;
      prepared_ = count;
    }
    return nvjpegDecodeBatched(handle_, state_, files_.data(), lengths_.data(), outputs_.data(), stream());
  }
  void destroy() {
    for (auto* parser : parsers_)
      if (parser != nullptr) nvjpegJpegStreamDestroy(parser);
    if (state_ != nullptr) nvjpegJpegStateDestroy(state_);
    nvjpegDestroy(handle_);
  }
  cudaStream_t stream() { return device::stream_of(queue_.queue()); }
  std::uint8_t* mark(std::size_t image) const { return static_cast<std::uint8_t*>(marks_.data()) + image * kMark; }
  static std::uint8_t* end_of(const Job& job) {
    return static_cast<std::uint8_t*>(job.to) + 3 * job.size.width * job.size.height - kMark;
  }

  nvjpegHandle_t handle_;
  nvjpegJpegState_t state_ = nullptr;
  std::vector<nvjpegJpegStream_t> parsers_;  // one per worker
  device::PinnedBuffer marks_;               // marks as written, then as read back
  std::vector<const unsigned char*> files_;
  std::vector<std::size_t> lengths_;
  std::vector<nvjpegImage_t> outputs_;
  int prepared_ = 0;  // batch size that the decoder state is initialised for
  bool told_ = false;
  device::DeviceQueue queue_;
};

nvjpegStatus_t open_backend(nvjpegBackend_t backend, nvjpegHandle_t& handle) {
#if defined(NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION)
  // Upsample chroma as libjpeg does, if the library can.
  if (nvjpegCreateEx(backend, nullptr, nullptr, NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION, &handle) ==
      NVJPEG_STATUS_SUCCESS)
    return NVJPEG_STATUS_SUCCESS;
#endif
  return nvjpegCreateEx(backend, nullptr, nullptr, NVJPEG_FLAGS_DEFAULT, &handle);
}

}  // namespace

std::unique_ptr<DeviceDecoder> make_device_decoder(std::size_t workers, std::int64_t most_images,
                                                   std::string& why_not) {
  device::make_current();
  nvjpegHandle_t handle = nullptr;
  auto status = open_backend(NVJPEG_BACKEND_HARDWARE, handle);
  if (status != NVJPEG_STATUS_SUCCESS && most_images < kLargeBatch) {
    why_not = fmt::format(
        "this device has no JPEG engine (nvJPEG: {}), and {} images a rank are too few for the "
        "library's general decoder ({} or more)",
        name_of(status), most_images, kLargeBatch);
    return nullptr;
  }
  if (status != NVJPEG_STATUS_SUCCESS) status = open_backend(NVJPEG_BACKEND_GPU_HYBRID, handle);
  if (status != NVJPEG_STATUS_SUCCESS) {
    why_not = fmt::format("nvJPEG does not start: {} ({})", name_of(status), static_cast<int>(status));
    return nullptr;
  }
  return std::make_unique<NvJpeg>(handle, workers, most_images);
}

}  // namespace seer::data
#endif
