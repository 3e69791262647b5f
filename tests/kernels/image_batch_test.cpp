// SPDX-License-Identifier: Apache-2.0
// Crops of a batch against the single operations, which image_test.cpp compares with Pillow's: to the bit, on the host
// and, where there is one, on a device.
#include "seer/kernels/image_batch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "device_support.hpp"
#include "seer/base/random.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/stand_in.hpp"

namespace seer::kernels {
namespace {

using device::Buffer;
using device::Queue;
using device::Space;

constexpr float kMean[3] = {0.485F, 0.456F, 0.406F}, kStd[3] = {0.229F, 0.224F, 0.225F};

/// A crop and the same by single operations.
struct Wanted {
  std::int64_t image = 0;
  CropJob job;
  double hue_factor = 0;
  float radius = 0;
};

struct Pictures {
  std::vector<std::uint8_t> bytes;  // one after another
  struct Place {
    std::int64_t at, width, height;
  };
  std::vector<Place> places;

  void add(std::int64_t width, std::int64_t height, std::uint64_t seed) {
    // Smooth colours with noise: noise alone has no hue to speak of and blurs to grey.
    Random random(seed, Purpose::test);
    places.push_back({static_cast<std::int64_t>(bytes.size()), width, height});
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        for (int c = 0; c < 3; ++c) {
          const auto slope = static_cast<std::uint64_t>((x * (c + 1) + y * (3 - c)) * 255 / (3 * (width + height)));
          bytes.push_back(static_cast<std::uint8_t>((slope + random.below(90) + seed * 40) & 255U));
        }
      }
    }
  }
};

std::vector<float> singly(const Pictures& pictures, const std::vector<Wanted>& wanted, std::int64_t size) {
  std::vector<float> out(wanted.size() * static_cast<std::size_t>(3 * size * size));
  ImageScratch scratch;
  Planes planes;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto& w = wanted[i];
    const auto& picture = pictures.places[static_cast<std::size_t>(w.image)];
    crop_resize(pictures.bytes.data() + picture.at, 3 * picture.width, w.job.box, size, size, w.job.flip, scratch,
                planes);
    for (std::int32_t step = 0; step < w.job.changes; ++step) {
      if (w.job.order[step] == Colour::brightness) adjust_brightness(planes, w.job.brightness);
      if (w.job.order[step] == Colour::contrast) adjust_contrast(planes, w.job.contrast);
      if (w.job.order[step] == Colour::saturation) adjust_saturation(planes, w.job.saturation);
      if (w.job.order[step] == Colour::hue) adjust_hue(planes, w.hue_factor);
    }
    if (w.job.grey) grey(planes);
    if (w.job.blur) gaussian_blur(planes, w.radius, scratch);
    float* const crop = out.data() + i * static_cast<std::size_t>(3 * size * size);
    normalise(planes, kMean, kStd, crop);
    erase(w.job.erasure, size, crop);
  }
  return out;
}

std::vector<float> together(Queue& queue, const Pictures& pictures, const std::vector<Wanted>& wanted,
                            std::int64_t size) {
  std::vector<CropJob> jobs;
  for (const auto& w : wanted) {
    jobs.push_back(w.job);
    jobs.back().pixels = pictures.places[static_cast<std::size_t>(w.image)].at;
    jobs.back().row_bytes = 3 * pictures.places[static_cast<std::size_t>(w.image)].width;
  }
  const auto crops = static_cast<std::int64_t>(jobs.size());
  std::vector<std::int64_t> first(jobs.size() + 1);
  CropBatch batch;
  batch.crops = crops;
  batch.size = size;
  batch.room = lay_out(jobs.data(), crops, size, first.data());
  const auto there = [&queue](const auto& values) {
    Buffer buffer(values.size() * sizeof(values[0]), queue.space);
    device::copy(queue, values.data(), Space::host, buffer.data(), queue.space, buffer.bytes());
    return buffer;
  };
  const Buffer table = there(jobs), rows = there(first), pixels = there(pictures.bytes);
  const Buffer scratch(crop_scratch_bytes(crops, size, batch.room), queue.space);
  const Buffer out = Buffer::floats(jobs.size() * static_cast<std::size_t>(3 * size * size), queue.space);
  batch.jobs = static_cast<const CropJob*>(table.data());
  batch.first = static_cast<const std::int64_t*>(rows.data());
  batch.pixels = static_cast<const std::uint8_t*>(pixels.data());
  batch.scratch = scratch.data();
  std::copy_n(kMean, 3, batch.mean);
  std::copy_n(kStd, 3, batch.std);
  batch.out = out.f32();
  make_crops(queue, batch);
  std::vector<float> values(out.bytes() / sizeof(float));
  device::copy(queue, out.data(), queue.space, values.data(), Space::host, out.bytes());
  queue.wait();
  return values;
}

/// Images from a single pixel to a long line, boxes of all kinds, all changes in all orders.
void random_batch(std::int64_t size, std::int64_t crops, Pictures& pictures, std::vector<Wanted>& wanted) {
  const auto seed = static_cast<std::uint64_t>(size);
  Random random(seed, Purpose::test);
  const auto draw = [&random](std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1)));
  };
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 190}, {333, 2}, {97, 71}, {40, 140}, {211, 160}})
    pictures.add(width, height, seed + pictures.places.size());
  for (std::int64_t i = 0; i < crops; ++i) {
    Wanted w;
    w.image = draw(0, static_cast<std::int64_t>(pictures.places.size()) - 1);
    const auto& picture = pictures.places[static_cast<std::size_t>(w.image)];
    auto& job = w.job;
    job.box = {0, 0, draw(1, picture.width), draw(1, picture.height)};
    job.box.left = draw(0, picture.width - job.box.width);
    job.box.top = draw(0, picture.height - job.box.height);
    job.flip = random.below(2) == 0 ? Flip::no : Flip::yes;
    job.grey = random.below(4) == 0;
    std::vector<Colour> all = {Colour::brightness, Colour::contrast, Colour::saturation, Colour::hue};
    for (std::size_t k = 3; k > 0; --k) std::swap(all[k], all[random.below(k + 1)]);
    job.changes = static_cast<std::int32_t>(draw(0, 4));
    std::copy_n(all.begin(), job.changes, job.order);
    job.brightness = static_cast<float>(random.uniform(0, 2.2));
    job.contrast = static_cast<float>(random.uniform(0, 2.2));
    job.saturation = static_cast<float>(random.uniform(0, 2.2));
    w.hue_factor = random.uniform(-0.5, 0.5);
    job.hue = hue_shift(w.hue_factor);
    job.blur = random.below(2) == 0;
    w.radius = static_cast<float>(random.uniform(0.1, i % 5 == 0 ? 9.0 : 2.0));
    job.blur_box = blur_box(w.radius);
    if (i % 3 == 0) {
      job.erasure = {{0, 0, draw(0, size), draw(0, size)}, seed, static_cast<std::uint64_t>(i), 4};
      job.erasure.box.left = draw(0, size - job.erasure.box.width);
      job.erasure.box.top = draw(0, size - job.erasure.box.height);
    }
    wanted.push_back(w);
  }
}

void expect_same(Queue& queue) {
  for (const std::int64_t size : {1, 8, 33, 96}) {
    Pictures pictures;
    std::vector<Wanted> wanted;
    random_batch(size, size == 96 ? 40 : 90, pictures, wanted);
    const auto one = singly(pictures, wanted, size), all = together(queue, pictures, wanted, size);
    ASSERT_EQ(one.size(), all.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      const std::size_t crop = i / static_cast<std::size_t>(3 * size * size);
      const auto pixel = static_cast<std::int64_t>(i / 3) % (size * size);
      const auto& box = wanted[crop].job.erasure.box;
      const bool noise = pixel / size >= box.top && pixel / size < box.top + box.height && pixel % size >= box.left &&
                         pixel % size < box.left + box.width;
      ASSERT_NEAR(one[i], all[i], noise ? 4e-6 : 0) << "size " << size << ", crop " << crop << ", pixel " << pixel;
    }
    EXPECT_EQ(all, together(queue, pictures, wanted, size));
  }
}

TEST(ImageBatch, MakesTheCropsOfTheSingleOperations) {
  SEER_NEEDS_KERNELS();
  Queue queue;
  expect_same(queue);
}

/// In a host build on its stand-in: the same code, in memory that only queued work may touch.
TEST(ImageBatch, MakesTheSameCropsOnADevice) {
#if !defined(SEER_CUDA)
  const device::StandIn stand_in;
#elif !defined(SEER_KERNELS_CUDA)
  GTEST_SKIP() << "not run: the Kokkos of this build has no Cuda, so its kernels are the host's";
#else
  SEER_NEEDS_DEVICE();
#endif
#if !defined(SEER_CUDA) || defined(SEER_KERNELS_CUDA)
  device::DeviceQueue stream;
  expect_same(stream.queue());
#endif
}

TEST(ImageBatch, CropOfItsFinalSizeIsLeftAsItIs) {
  SEER_NEEDS_KERNELS();
  // What too large images rely on: they go to a device as crops that were resized on the host.
  Pictures pictures;
  pictures.add(48, 48, 5);
  Wanted whole;
  whole.job.box = {0, 0, 48, 48};
  Queue queue;
  const auto out = together(queue, pictures, {whole}, 48);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const float scale = 1.0F / (255.0F * kStd[i % 3]), offset = -kMean[i % 3] / kStd[i % 3];
    const volatile float product = static_cast<float>(pictures.bytes[i]) * scale;  // rounded before the sum
    ASSERT_EQ(out[i], product + offset) << i;
  }
}

TEST(ImageBatch, NoCropsAreNoWork) {
  SEER_NEEDS_KERNELS();
  Queue queue;
  EXPECT_NO_THROW(make_crops(queue, {}));
}

}  // namespace
}  // namespace seer::kernels
