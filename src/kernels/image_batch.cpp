// SPDX-License-Identifier: Apache-2.0
// One thread per pixel; a pixel is packed into one word between kernels. It has 8 bits per channel there, as between
// the single operations, so both round at the same places.
#include "seer/kernels/image_batch.hpp"

#include <algorithm>

#include "image_formulas.hpp"
#include "noise_formula.hpp"
#include "row_formulas.hpp"

namespace seer::kernels {
namespace {

/// One pixel's channels.
struct Rgb {
  std::int32_t r, g, b;
};
KOKKOS_FORCEINLINE_FUNCTION Rgb unpacked(std::uint32_t pixel) {
  return {static_cast<std::int32_t>(pixel & 255U), static_cast<std::int32_t>(pixel >> 8 & 255U),
          static_cast<std::int32_t>(pixel >> 16 & 255U)};
}
KOKKOS_FORCEINLINE_FUNCTION std::uint32_t packed(const Rgb& c) {
  return static_cast<std::uint32_t>(c.r) | static_cast<std::uint32_t>(c.g) << 8 | static_cast<std::uint32_t>(c.b) << 16;
}

/// The range of inputs of one output.
struct Taps {
  std::int32_t first, count;
};

/// The batch and the parts of its scratch.
struct Made {
  CropBatch batch;
  std::int32_t* weights;
  Taps* taps;            // [crops, 2 (across, down), size]
  std::uint32_t* half;   // [room.rows, size], after the horizontal resize
  std::uint32_t *a, *b;  // [crops, size, size]; the results end up in a
  std::int32_t* level;   // [crops], the mean luma for the contrast change
  std::int64_t pixels() const { return batch.crops * batch.size * batch.size; }

  struct Place {
    std::int64_t crop;
    std::int32_t y, x;
  };
  KOKKOS_FORCEINLINE_FUNCTION Place place(std::int64_t item) const {
    const std::int64_t crop = item / (batch.size * batch.size);
    const auto inside = static_cast<std::int32_t>(item - crop * batch.size * batch.size);
    const auto size = static_cast<std::int32_t>(batch.size);
    return {crop, inside / size, inside % size};
  }
  KOKKOS_FORCEINLINE_FUNCTION std::int32_t* weights_across(const CropJob& job, std::int64_t x) const {
    return weights + job.weights + x * formula::most_taps(job.box.width, batch.size);
  }
  KOKKOS_FORCEINLINE_FUNCTION std::int32_t* weights_down(const CropJob& job, std::int64_t y) const {
    return weights + job.weights + batch.size * formula::most_taps(job.box.width, batch.size) +
           y * formula::most_taps(job.box.height, batch.size);
  }
};

/// Computes the resampling weights of one output: across for the first `size` items of a crop, then down.
struct Weights {
  Made m;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t size = m.batch.size, crop = item / (2 * size), output = item - crop * 2 * size;
    const CropJob& job = m.batch.jobs[crop];
    const bool down = output >= size;
    const std::int64_t x = down ? output - size : output, in = down ? job.box.height : job.box.width;
    std::int32_t* const to = down ? m.weights_down(job, x) : m.weights_across(job, x);
    const auto filter = formula::filter_of(in, size);
    const auto reach = formula::reach_of(filter, in, x);
    double sum = 0;
    for (std::int64_t t = reach.low; t < reach.high; ++t) sum += formula::share_of(filter, reach, t);
    for (std::int64_t t = reach.low; t < reach.high; ++t)
      to[t - reach.low] = formula::weight_of(formula::share_of(filter, reach, t), sum);
    m.taps[item] = {static_cast<std::int32_t>(reach.low), static_cast<std::int32_t>(reach.high - reach.low)};
  }
};

/// Resizes the rows of the boxes horizontally.
struct Across {
  Made m;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t size = m.batch.size, row = item / size, x = item - row * size;
    // Finds the last crop whose rows begin at or before this row.
    std::int64_t crop = 0, end = m.batch.crops;
    while (end - crop > 1) {
      const std::int64_t middle = (crop + end) / 2;
      (m.batch.first[middle] <= row ? crop : end) = middle;
    }
    const CropJob& job = m.batch.jobs[crop];
    const Taps taps = m.taps[crop * 2 * size + x];
    const std::int32_t* const weight = m.weights_across(job, x);
    const std::uint8_t* const in = m.batch.pixels + job.pixels +
                                   (job.box.top + row - m.batch.first[crop]) * job.row_bytes +
                                   3 * (job.box.left + taps.first);
    std::int32_t r = formula::kResampleHalf, g = r, b = r;
    for (std::int32_t t = 0; t < taps.count; ++t) {
      r += weight[t] * in[3 * t];
      g += weight[t] * in[3 * t + 1];
      b += weight[t] * in[3 * t + 2];
    }
    m.half[item] = packed({formula::resampled(r), formula::resampled(g), formula::resampled(b)});
  }
};

KOKKOS_FORCEINLINE_FUNCTION Rgb blend(std::int32_t from, const Rgb& to, float factor) {
  return {formula::blend(from, to.r, factor), formula::blend(from, to.g, factor), formula::blend(from, to.b, factor)};
}

KOKKOS_FORCEINLINE_FUNCTION Rgb changed(const CropJob& job, Colour step, std::int32_t level, Rgb c) {
  if (step == Colour::brightness) return blend(0, c, job.brightness);
  if (step == Colour::contrast) return blend(level, c, job.contrast);
  if (step == Colour::saturation) return blend(formula::luma(c.r, c.g, c.b), c, job.saturation);
  std::int32_t hue = 0, saturation = 0;
  const std::int32_t high = c.r > c.g ? c.r : c.g, value = high > c.b ? high : c.b;
  formula::to_hue_saturation(c.r, c.g, c.b, hue, saturation);
  formula::from_hue_saturation((hue + job.hue) & 255, saturation, value, c.r, c.g, c.b);
  return c;
}

/// Index of the contrast change, which needs the whole crop as input; job.changes if there is none.
KOKKOS_FORCEINLINE_FUNCTION std::int32_t contrast_at(const CropJob& job) {
  std::int32_t step = 0;
  while (step < job.changes && job.order[step] != Colour::contrast) ++step;
  return step;
}

/// Resizes vertically, mirrors, and applies the colour changes before contrast.
struct Down {
  Made m;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    const auto [crop, y, x] = m.place(item);
    const CropJob& job = m.batch.jobs[crop];
    const std::int64_t size = m.batch.size, from = job.flip == Flip::yes ? size - 1 - x : x;
    const Taps taps = m.taps[(crop * 2 + 1) * size + y];
    const std::int32_t* const weight = m.weights_down(job, y);
    const std::uint32_t* const in = m.half + (m.batch.first[crop] + taps.first) * size + from;
    std::int32_t r = formula::kResampleHalf, g = r, b = r;
    for (std::int32_t t = 0; t < taps.count; ++t) {
      const Rgb c = unpacked(in[t * size]);
      r += weight[t] * c.r;
      g += weight[t] * c.g;
      b += weight[t] * c.b;
    }
    Rgb c{formula::resampled(r), formula::resampled(g), formula::resampled(b)};
    const std::int32_t steps = contrast_at(job);
    for (std::int32_t step = 0; step < steps; ++step) c = changed(job, job.order[step], 0, c);
    m.a[item] = packed(c);
  }
};

struct Luma {
  KOKKOS_FORCEINLINE_FUNCTION double operator()(std::uint32_t pixel) const {
    const Rgb c = unpacked(pixel);
    return static_cast<double>(formula::luma(c.r, c.g, c.b));
  }
};

/// Mean luma of the crops with a contrast change. The sums are of integers, so their order does not matter.
struct Level {
  Made m;
  KOKKOS_INLINE_FUNCTION void operator()(const auto& team, std::int64_t crop) const {
    const CropJob& job = m.batch.jobs[crop];
    if (contrast_at(job) == job.changes) return;
    const std::int64_t count = m.batch.size * m.batch.size;
    const double sum = team.sum(count, Each{m.a + crop * count, Luma{}});
    if (team.leads()) m.level[crop] = formula::mean_level(static_cast<std::int64_t>(sum), count);
  }
};

/// Applies contrast, the changes after it, and grey.
struct Tone {
  Made m;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    const std::int64_t crop = item / (m.batch.size * m.batch.size);
    const CropJob& job = m.batch.jobs[crop];
    std::int32_t step = contrast_at(job);
    if (step == job.changes && !job.grey) return;
    const std::int32_t level = step < job.changes ? m.level[crop] : 0;
    Rgb c = unpacked(m.a[item]);
    for (; step < job.changes; ++step) c = changed(job, job.order[step], level, c);
    if (job.grey) c.r = c.g = c.b = formula::luma(c.r, c.g, c.b);
    m.a[item] = packed(c);
  }
};

/// One of the six box passes of a blur, across or down.
template <bool kDown>
struct Blur {
  Made m;
  const std::uint32_t* in;
  std::uint32_t* out;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    const auto [crop, y, x] = m.place(item);
    const CropJob& job = m.batch.jobs[crop];
    if (!job.blur) return;
    const auto last = static_cast<std::int32_t>(m.batch.size) - 1, at = kDown ? y : x;
    const auto reach = static_cast<std::int32_t>(job.blur_box.reach);
    const std::int64_t step = kDown ? m.batch.size : 1;
    const std::uint32_t* const line = in + item - at * step;
    const auto add = [&](std::int32_t k, std::uint32_t(&sums)[3]) {
      const std::uint32_t pixel = line[(k < 0 ? 0 : (k > last ? last : k)) * step];
      for (int c = 0; c < 3; ++c) sums[c] += pixel >> (8 * c) & 255U;
    };
    std::uint32_t inner[3] = {}, outer[3] = {};
    for (std::int32_t k = at - reach; k <= at + reach; ++k) add(k, inner);
    add(at - reach - 1, outer);
    add(at + reach + 1, outer);
    const auto boxed = [&](int c) {
      return formula::boxed(inner[c], outer[c], job.blur_box.weight, job.blur_box.far_weight);
    };
    out[item] = packed({boxed(0), boxed(1), boxed(2)});
  }
};

/// Whether the pixel is one of those that `erasure` replaces; then writes its noise.
KOKKOS_FORCEINLINE_FUNCTION bool erased(const Erasure& erasure, std::int64_t size, std::int64_t y, std::int64_t x,
                                        float* out) {
  const Box& box = erasure.box;
  if (y < box.top || y >= box.top + box.height || x < box.left || x >= box.left + box.width) return false;
  formula::noise(erasure.seed, erasure.position, erasure.crop, static_cast<std::uint32_t>(y * size + x), out);
  return true;
}

struct Normalised {
  Made m;
  formula::Normalisation n;
  KOKKOS_FORCEINLINE_FUNCTION void operator()(std::int64_t item) const {
    float* const out = m.batch.out + 3 * item;
    const auto [crop, y, x] = m.place(item);
    if (erased(m.batch.jobs[crop].erasure, m.batch.size, y, x, out)) return;
    const Rgb c = unpacked(m.a[item]);
    out[0] = static_cast<float>(c.r) * n.scale[0] + n.offset[0];
    out[1] = static_cast<float>(c.g) * n.scale[1] + n.offset[1];
    out[2] = static_cast<float>(c.b) * n.scale[2] + n.offset[2];
  }
};

/// Divides the scratch into its parts. Returns the bytes needed, also if there is no scratch yet.
std::size_t cut(Made& m, const CropBatch& batch) {
  m.batch = batch;
  std::size_t used = 0;
  const auto piece = [&used, &batch]<class T>(T*& to, std::int64_t count) {
    to = batch.scratch == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<char*>(batch.scratch) + used);
    used += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
  };
  piece(m.weights, batch.room.weights);
  piece(m.taps, batch.crops * 2 * batch.size);
  piece(m.half, batch.room.rows * batch.size);
  piece(m.a, m.pixels());
  piece(m.b, m.pixels());
  piece(m.level, batch.crops);
  return used;
}

}  // namespace

void erase(const Erasure& erasure, std::int64_t size, float* crop) {
  const Box& box = erasure.box;
  for (std::int64_t y = box.top; y < box.top + box.height; ++y)
    for (std::int64_t x = box.left; x < box.left + box.width; ++x)
      erased(erasure, size, y, x, crop + 3 * (y * size + x));
}

std::int32_t hue_shift(double factor) {
  return formula::hue_shift(factor);
}

CropRoom room_of(const Box& box, std::int64_t size) {
  return {box.height, size * (formula::most_taps(box.width, size) + formula::most_taps(box.height, size))};
}

CropRoom lay_out(CropJob* jobs, std::int64_t crops, std::int64_t size, std::int64_t* first) {
  CropRoom room;
  for (std::int64_t crop = 0; crop < crops; ++crop) {
    first[crop] = room.rows;
    jobs[crop].weights = room.weights;
    room += room_of(jobs[crop].box, size);
  }
  first[crops] = room.rows;
  return room;
}

std::size_t crop_scratch_bytes(std::int64_t crops, std::int64_t size, const CropRoom& room) {
  Made m{};
  CropBatch batch;
  batch.crops = crops;
  batch.size = size;
  batch.room = room;
  return cut(m, batch);
}

void make_crops(device::Queue& queue, const CropBatch& batch) {
  launch::on_space(queue, {batch.crops * batch.size * batch.size * 12}, [&]<class Space>() {
    ensure(batch.scratch != nullptr || batch.crops == 0, "crops are made in a scratch");
    Made m{};
    cut(m, batch);
    launch::loop<Space>(queue, "kernels/crop_weights", batch.crops * 2 * batch.size, Weights{m});
    launch::loop<Space>(queue, "kernels/crop_across", batch.room.rows * batch.size, Across{m});
    launch::loop<Space>(queue, "kernels/crop_down", m.pixels(), Down{m});
    launch::rows<Space>(queue, "kernels/crop_level", batch.crops, Level{m});
    launch::loop<Space>(queue, "kernels/crop_tone", m.pixels(), Tone{m});
    for (int pass = 0; pass < 3; ++pass) {
      launch::loop<Space>(queue, "kernels/crop_blur_across", m.pixels(), Blur<false>{m, m.a, m.b});
      std::swap(m.a, m.b);
    }
    for (int pass = 0; pass < 3; ++pass) {
      launch::loop<Space>(queue, "kernels/crop_blur_down", m.pixels(), Blur<true>{m, m.a, m.b});
      std::swap(m.a, m.b);
    }
    launch::loop<Space>(queue, "kernels/crop_normalise", m.pixels(),
                        Normalised{m, formula::normalisation(batch.mean, batch.std)});
  });
}

}  // namespace seer::kernels
