// SPDX-License-Identifier: Apache-2.0
// `seer bench conv`: time of each distinct convolution of a preset's trunk, in all three directions, beside the largest
// matrix product the same run could do: the share of it tells which layers are far from what the machine gives.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/architecture.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string preset = "400mf", width_rule = "pycls";
  std::int64_t size = 224, batch = 8, repeat = 10;
  std::string precision = "fp32";
  bool json = false;
  DType type() const { return precision == "fp32" ? DType::f32 : precision == "bf16" ? DType::bf16 : DType::f16; }
};

constexpr std::array<const char*, 3> kDirections = {"forward", "backward_data", "backward_weights"};

/// One distinct convolution and how often the trunk has it.
struct Layer {
  dnn::ConvShape shape;
  std::int64_t count = 1;
  bool images = false;  ///< reads the images, of which no gradient is wanted
  std::array<double, 3> ms{};

  double gflop() const { return 2e-9 * static_cast<double>(shape.macs()); }
  double gflops(std::size_t direction) const { return ms[direction] > 0 ? gflop() / ms[direction] * 1e3 : 0; }
  std::string name() const {
    const auto& s = shape;
    return fmt::format("{}x{} {} -> {}{}{}", s.kernel, s.kernel, s.c_in, s.c_out,
                       s.stride > 1 ? fmt::format(" /{}", s.stride) : "",
                       s.groups > 1 ? fmt::format(" in {} groups", s.groups) : "");
  }
};

/// Spec 1.2: stem, then per block a, b, c and where the shape changes the shortcut. Squeeze-excitation works on one
/// pixel an image and is left out.
std::vector<Layer> layers_of(const nn::Architecture& architecture, std::int64_t size, std::int64_t batch) {
  std::vector<Layer> layers;
  const auto add = [&](std::int64_t h, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                       std::int64_t groups) {
    const dnn::ConvShape shape{.n = batch,
                               .h = h,
                               .w = h,
                               .c_in = in,
                               .c_out = out,
                               .kernel = kernel,
                               .stride = stride,
                               .pad = kernel / 2,
                               .groups = groups};
    const auto same = std::find_if(layers.begin(), layers.end(), [&](const Layer& l) { return l.shape == shape; });
    if (same != layers.end()) {
      ++same->count;
    } else {
      layers.push_back({.shape = shape});
    }
    return shape.out_h();
  };
  std::int64_t h = add(size, 3, nn::kStemWidth, 3, 2, 1);
  layers.front().images = true;
  std::int64_t in = nn::kStemWidth;
  for (const auto& stage : architecture.stages) {
    for (std::int64_t block = 0; block < stage.depth; ++block) {
      const std::int64_t stride = block == 0 ? 2 : 1;
      add(h, in, stage.width, 1, 1, 1);
      const std::int64_t out_h = add(h, stage.width, stage.width, 3, stride, stage.width / stage.group_width);
      add(out_h, stage.width, stage.width, 1, 1, 1);
      if (stride != 1 || in != stage.width) add(h, in, stage.width, 1, stride, 1);
      in = stage.width;
      h = out_h;
    }
  }
  return layers;
}

/// Best of the repetitions, of the slowest rank: all ranks run at once, as in training.
double best_ms(const comm::Communicator& world, std::int64_t repeat, const std::function<void()>& call) {
  call();  // plans, packs, touches pages
  world.barrier();
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < repeat; ++i) {
    const Clock clock;
    call();
    best = std::min(best, clock.ms());
  }
  return world.all_reduce(best, comm::Op::max);
}

device::Buffer random_floats(std::int64_t count, std::uint64_t seed) {
  auto buffer = device::Buffer::floats(static_cast<std::size_t>(count));
  std::uint64_t state = seed;
  for (std::int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    buffer.f32()[i] = static_cast<float>(state >> 40) * 0x1p-24F - 0.5F;
  }
  return buffer;
}

/// Random numbers as elements of `type`.
struct Values {
  device::Buffer memory;
  device::Tensor tensor;
  Values(const device::Shape& shape, DType type, std::uint64_t seed)
      : memory(static_cast<std::size_t>(shape.elems()) * dtype_bytes(type)), tensor{memory.data(), shape, type} {
    const auto floats = random_floats(shape.elems(), seed);
    device::Queue queue;
    kernels::cast(queue, {.data = floats.data(), .shape = shape}, tensor);
  }
};

void measure(const comm::Communicator& world, dnn::Backend& backend, DType type, std::int64_t repeat, Layer& layer) {
  const auto& s = layer.shape;
  const device::Shape src_shape{s.n, s.h, s.w, s.c_in}, dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
  const Values source(src_shape, type, 1), d_destination(dst_shape, type, 2);
  const auto weight = random_floats(s.weight_elems(), 3);
  const auto d_weight = device::Buffer::floats(static_cast<std::size_t>(s.weight_elems()));
  const auto out_values =
      device::Buffer::floats(static_cast<std::size_t>(std::max(src_shape.elems(), dst_shape.elems())));
  const auto &src = source.tensor, &d_dst = d_destination.tensor;
  const device::Tensor dst{out_values.data(), dst_shape, type}, d_src{out_values.data(), src_shape, type};
  // A new version at each call, as after each update: packing is part of the time.
  std::uint64_t version = 0;
  device::Queue queue;
  layer.ms[0] = best_ms(world, repeat, [&] { backend.conv_forward(queue, s, src, {weight.data(), ++version}, dst); });
  if (!layer.images) {
    layer.ms[1] = best_ms(world, repeat, [&] {
      backend.conv_backward_data(queue, s, d_dst, {weight.data(), ++version}, d_src);
    });
  }
  layer.ms[2] = best_ms(world, repeat, [&] {
    backend.conv_backward_weights(queue, s, src, d_dst, d_weight.f32(), dnn::Accumulate::yes);
  });
  backend.set_packed_weights_limit(0);  // addresses come again
  backend.set_packed_weights_limit(std::size_t{1} << 30);
}

double measure_peak(const comm::Communicator& world, dnn::Backend& backend, DType type, std::int64_t repeat) {
  constexpr std::int64_t kSide = 768;
  const Values a({kSide, 1, 1, kSide}, type, 1), b({kSide, 1, 1, kSide}, type, 2);
  const auto c = device::Buffer::floats(kSide * kSide);
  device::Queue queue;
  const double ms = best_ms(world, repeat, [&] {
    backend.gemm(queue, kSide, kSide, kSide, type, a.memory.data(), dnn::Transpose::no, b.memory.data(),
                 dnn::Transpose::no, c.f32());
  });
  return 2e-6 * static_cast<double>(kSide * kSide * kSide) / ms;
}

struct Total {
  double ms = 0, gflop = 0;
};

std::array<Total, 4> totals(const std::vector<Layer>& layers) {
  std::array<Total, 4> out;
  for (const auto& layer : layers) {
    for (std::size_t d = 0; d < 3; ++d) {
      if (layer.ms[d] <= 0) continue;
      for (const std::size_t to : {d, std::size_t{3}}) {
        out[to].ms += layer.ms[d] * static_cast<double>(layer.count);
        out[to].gflop += layer.gflop() * static_cast<double>(layer.count);
      }
    }
  }
  return out;
}

void print_table(const Options& options, const std::string& library, const std::vector<Layer>& layers, double peak,
                 int ranks) {
  fmt::print("{}, {}, size {}, batch {} a rank, ranks {}, threads {}, {}; matrix product of this run {:.1f} GFLOP/s\n",
             options.preset, options.precision, options.size, options.batch, ranks, device::threads(), library, peak);
  fmt::print("share: of that matrix product; best of {} calls, of the slowest rank\n", options.repeat);
  fmt::print("{:<32}{:>9}{:>7}", "convolution", "at", "times");
  for (const char* name : {"forward", "to data", "to weights"})
    fmt::print("{:>12} ms {:>9}{:>7}", name, "GFLOP/s", "share");
  fmt::print("\n");
  const auto cells = [&](double ms, double gflops) {
    if (ms <= 0) {
      fmt::print("{:>15}{:>10}{:>7}", "-", "-", "-");
    } else {
      fmt::print("{:>15.3f}{:>10.1f}{:>7.2f}", ms, gflops, gflops / peak);
    }
  };
  for (const auto& layer : layers) {
    fmt::print("{:<32}{:>9}{:>7}", layer.name(), fmt::format("{0}x{0}", layer.shape.h), layer.count);
    for (std::size_t d = 0; d < 3; ++d) cells(layer.ms[d], layer.gflops(d));
    fmt::print("\n");
  }
  const auto sums = totals(layers);
  fmt::print("{:<48}", "total");
  for (std::size_t d = 0; d < 3; ++d) cells(sums[d].ms, sums[d].gflop / sums[d].ms * 1e3);
  fmt::print("\nall three: {:.1f} ms, {:.1f} GFLOP/s, share {:.2f}\n", sums[3].ms, sums[3].gflop / sums[3].ms * 1e3,
             sums[3].gflop / sums[3].ms * 1e3 / peak);
}

void print_json(const Options& options, const std::string& library, const std::vector<Layer>& layers, double peak,
                int ranks) {
  nlohmann::json out = {{"bench", "conv"},
                        {"preset", options.preset},
                        {"precision", options.precision},
                        {"size", options.size},
                        {"batch", options.batch},
                        {"ranks", ranks},
                        {"threads", device::threads()},
                        {"library", library},
                        {"peak_gflop_per_s", peak},
                        {"repeat", options.repeat},
                        {"layers", nlohmann::json::array()}};
  for (const auto& layer : layers) {
    const auto& s = layer.shape;
    nlohmann::json row = {{"name", layer.name()},  {"count", layer.count},    {"height", s.h},
                          {"channels_in", s.c_in}, {"channels_out", s.c_out}, {"kernel", s.kernel},
                          {"stride", s.stride},    {"groups", s.groups},      {"gflop", layer.gflop()}};
    for (std::size_t d = 0; d < 3; ++d) {
      if (layer.ms[d] <= 0) continue;
      row[std::string(kDirections[d]) + "_ms"] = layer.ms[d];
      row[std::string(kDirections[d]) + "_gflop_per_s"] = layer.gflops(d);
      row[std::string(kDirections[d]) + "_share"] = layer.gflops(d) / peak;
    }
    out["layers"].push_back(row);
  }
  const auto sums = totals(layers);
  for (std::size_t d = 0; d < 4; ++d) {
    out["total"][std::string(d < 3 ? kDirections[d] : "all") + "_ms"] = sums[d].ms;
    out["total"][std::string(d < 3 ? kDirections[d] : "all") + "_gflop_per_s"] = sums[d].gflop / sums[d].ms * 1e3;
  }
  fmt::print("{}\n", out.dump(2));
}

}  // namespace

Run add_bench_conv(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("--preset", options->preset, "Model whose convolutions are measured")
      ->check(CLI::IsMember(nn::preset_names()))
      ->capture_default_str();
  command.add_option("--width-rule", options->width_rule, "pycls or torchvision")
      ->check(CLI::IsMember({"pycls", "torchvision"}))
      ->capture_default_str();
  command.add_option("--size", options->size, "Side of the images")->check(CLI::Range(16, 4096))->capture_default_str();
  command.add_option("--batch", options->batch, "Images a rank")->check(CLI::Range(1, 65536))->capture_default_str();
  command.add_option("--repeat", options->repeat, "Calls of which the best counts")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--precision", options->precision, "fp32, bf16 or fp16_o1")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16_o1"}))
      ->capture_default_str();
  command.add_flag("--json", options->json, "Print JSON");
  return [options](const comm::Communicator& world) {
    config::Model model;
    model.preset = options->preset;
    model.width_rule = options->width_rule;
    auto layers = layers_of(nn::architecture(model), options->size, options->batch);
    const auto backend = dnn::make_host_backend();
    const auto type = options->type();
    if (!backend->supports(type)) {
      throw Error(ExitCode::input,
                  fmt::format("{} cannot compute in {} on this processor", backend->describe(), options->precision),
                  "use --precision fp32, or bf16 where the processor has it")
          .as_agreed();
    }
    double peak = measure_peak(world, *backend, type, options->repeat);
    for (auto& layer : layers) measure(world, *backend, type, options->repeat, layer);
    // Again at the end: a machine that others use is not always equally fast.
    peak = std::max(peak, measure_peak(world, *backend, type, options->repeat));
    if (world.is_root()) {
      const auto print = options->json ? print_json : print_table;
      print(*options, backend->describe(), layers, peak, world.size());
    }
    return 0;
  };
}

}  // namespace seer::app
