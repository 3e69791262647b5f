// SPDX-License-Identifier: Apache-2.0
// `seer bench conv`: time of each distinct convolution of a preset's trunk, in all three directions, compared with the
// largest matrix product of the same run: low shares show layers far from what the machine can do. With --machine,
// compared with that file's peak and memory rate; with --plan, without measuring.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench_layers.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/plan/simulation.hpp"

namespace seer::app {
namespace {

struct Options {
  std::string trunk = "regnety", preset = "400mf", width_rule = "pycls", precision = "fp32", machine, choices;
  std::vector<std::int64_t> sizes{224}, batches{8};
  std::int64_t repeat = 10;
  bool device = false, tf32 = false, plan = false, json = false;
  DType type() const { return precision == "fp32" ? DType::f32 : precision == "bf16" ? DType::bf16 : DType::f16; }
};

/// Device or host, with the queue and back end that run the convolutions.
struct Place {
  std::unique_ptr<device::DeviceQueue> own;
  device::Queue queue;
  std::unique_ptr<dnn::Backend> backend;
  bool device() const { return own != nullptr; }
};

#if defined(SEER_CUDA)
constexpr bool kHasDevices = true;
#else
constexpr bool kHasDevices = false;  // at most a stand-in device, which computes on the host
#endif

std::unique_ptr<dnn::Backend> device_backend(const comm::Communicator& world, const Options& options) {
  dnn::DeviceOptions choices;
  choices.tf32 = options.tf32;
  choices.cache_dir = options.choices;
  choices.writes_cache = world.is_root();
  if (world.size() > 1) {
    choices.agree = [&world](const std::string& mine) {
      auto all = mine;
      world.broadcast(all);
      return all;
    };
  }
  return dnn::make_backend(device::Space::device, std::move(choices));
}

Place open(const comm::Communicator& world, const Options& options) {
  Place place;
  if (!options.device) {
    place.backend = dnn::make_host_backend();
    return place;
  }
  comm::agree(world, "looking for a device", [&] {
    if (device::bound_device() < 0) {
      throw Error(
          ExitCode::device,
          fmt::format("{}: nothing was measured", kHasDevices ? "no device here" : "this seer knows no devices"),
          kHasDevices ? "run it where there is one for each rank; without --device the host is measured"
                      : "build it with -DSEER_CUDA=ON; without --device the host is measured");
    }
    if (!device::sharing().empty()) {
      throw Error(ExitCode::device, device::sharing() + ": nothing was measured",
                  "start as many ranks a node as it has devices; without --device the host is measured");
    }
    place.own = std::make_unique<device::DeviceQueue>();
    place.queue = place.own->queue();
    place.backend = device_backend(world, options);
  });
  return place;
}

/// Best of the repetitions, on the slowest rank; all ranks run at once, as in training. On a device a call returns
/// before its work is done, so a repetition is the mean of enough calls for some milliseconds, between two waits.
double best_ms(const comm::Communicator& world, const Place& place, std::int64_t repeat,
               const std::function<void()>& call) {
  constexpr double kLeastMs = 5;
  call();  // plans, packs, touches pages
  place.queue.wait();
  std::int64_t calls = 1;
  if (place.device()) {
    const Clock once;
    call();
    place.queue.wait();
    const double ms = world.all_reduce(once.ms(), comm::Op::max);
    calls = static_cast<std::int64_t>(std::clamp(std::ceil(kLeastMs / std::max(ms, 1e-3)), 2.0, 200.0));
  }
  world.barrier();
  double best = std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < repeat; ++i) {
    const Clock clock;
    for (std::int64_t k = 0; k < calls; ++k) call();
    place.queue.wait();
    best = std::min(best, clock.ms() / static_cast<double>(calls));
  }
  return world.all_reduce(best, comm::Op::max);
}

/// Random numbers as elements of `type`, repeating after 4 Mi elements.
struct Values {
  device::Buffer memory;
  device::Tensor tensor;

  Values(Place& place, const device::Shape& shape, DType type, std::uint64_t seed)
      : memory(static_cast<std::size_t>(shape.elems()) * dtype_bytes(type), place.queue.space),
        tensor{memory.data(), shape, type, place.queue.space} {
    const auto length = std::min(shape.elems(), std::int64_t{1} << 22);
    auto floats = device::Buffer::floats(static_cast<std::size_t>(length));
    std::uint64_t state = seed;
    for (std::int64_t i = 0; i < length; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      floats.f32()[i] = static_cast<float>(state >> 40) * 0x1p-24F - 0.5F;
    }
    const device::Buffer rounded(static_cast<std::size_t>(length) * dtype_bytes(type));
    const device::Shape part{1, 1, 1, length};
    device::Queue host;
    kernels::cast(host, {.data = floats.data(), .shape = part}, {rounded.data(), part, type});
    for (std::size_t at = 0; at < memory.bytes(); at += rounded.bytes()) {
      device::copy(place.queue, rounded.data(), device::Space::host, static_cast<char*>(memory.data()) + at,
                   place.queue.space, std::min(rounded.bytes(), memory.bytes() - at));
    }
    place.queue.wait();
  }
};

void measure(const comm::Communicator& world, Place& place, DType type, std::int64_t repeat, ConvLayer& layer) {
  const auto& s = layer.shape;
  const auto space = place.queue.space;
  const device::Shape src_shape{s.n, s.h, s.w, s.c_in}, dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
  const Values source(place, src_shape, type, 1), d_destination(place, dst_shape, type, 2);
  const Values weight(place, {1, 1, 1, s.weight_elems()}, DType::f32, 3);
  const auto d_weight = device::Buffer::floats(static_cast<std::size_t>(s.weight_elems()), space);
  const auto out_values =
      device::Buffer::floats(static_cast<std::size_t>(std::max(src_shape.elems(), dst_shape.elems())), space);
  const auto &src = source.tensor, &d_dst = d_destination.tensor;
  const device::Tensor dst{out_values.data(), dst_shape, type, space}, d_src{out_values.data(), src_shape, type, space};
  // On the host a new version at each call, as after each update: packing is part of the time. On a device an update
  // packs weights once, for all crop sizes and both directions; `seer bench step` includes that.
  std::uint64_t version = 1;
  const auto weights = [&] {
    if (!place.device()) ++version;
    return dnn::Weights{weight.tensor.data, version};
  };
  auto& queue = place.queue;
  auto& backend = *place.backend;
  layer.ms[0] = best_ms(world, place, repeat, [&] { backend.conv_forward(queue, s, src, weights(), dst); });
  if (layer.has(1)) {
    layer.ms[1] = best_ms(world, place, repeat, [&] { backend.conv_backward_data(queue, s, d_dst, weights(), d_src); });
  }
  layer.ms[2] = best_ms(world, place, repeat, [&] {
    backend.conv_backward_weights(queue, s, src, d_dst, d_weight.f32(), dnn::Accumulate::yes);
  });
  backend.set_packed_weights_limit(0);  // later tensors may get the same addresses, so drop the packed copies
  backend.set_packed_weights_limit(std::size_t{1} << 30);
}

/// Rate of the largest matrix product; on a device also the rate of a copy, counting bytes read and written.
Yardstick measure_peak(const comm::Communicator& world, Place& place, DType type, std::int64_t repeat) {
  const bool large = place.device() && kHasDevices;
  const std::int64_t side = large ? 8192 : 768;
  Yardstick out{.source = "matrix product of this run"};
  {
    const Values a(place, {side, 1, 1, side}, type, 1), b(place, {side, 1, 1, side}, type, 2);
    const auto c = device::Buffer::floats(static_cast<std::size_t>(side * side), place.queue.space);
    const double ms = best_ms(world, place, repeat, [&] {
      place.backend->gemm(place.queue, side, side, side, type, a.memory.data(), dnn::Transpose::no, b.memory.data(),
                          dnn::Transpose::no, c.f32());
    });
    out.flop_per_s = 2e3 * static_cast<double>(side * side * side) / ms;
  }
  if (place.device()) {
    const std::size_t bytes = std::size_t{1} << (large ? 30 : 26);
    const auto space = place.queue.space;
    const device::Buffer from(bytes, space), to(bytes, space);
    const double ms =
        best_ms(world, place, repeat, [&] { device::copy(place.queue, from.data(), space, to.data(), space, bytes); });
    out.bytes_per_s = 2e3 * static_cast<double>(bytes) / ms;
  }
  return out;
}

void check(const Options& options) {
  if (options.sizes.size() != options.batches.size()) {
    throw Error(ExitCode::input,
                fmt::format("{} sizes and {} batches were given", options.sizes.size(), options.batches.size()),
                "one batch for each size: --size 224,96 --batch 16,32")
        .as_agreed();
  }
  if (options.plan && options.machine.empty()) {
    throw Error(ExitCode::input, "--plan needs --machine FILE", "inputs/machines/dgx_h100.toml").as_agreed();
  }
}

ConvHeading heading_of(const Options& options, int ranks) {
  return {.preset = options.preset,
          .precision = options.precision + (options.tf32 ? " (TF32)" : ""),
          .sizes = options.sizes,
          .batches = options.batches,
          .repeat = options.repeat,
          .ranks = ranks,
          .device = options.device};
}

int run(const comm::Communicator& world, const Options& options) {
  check(options);
  config::Model model;
  model.trunk = options.trunk;
  model.preset = options.preset;
  model.width_rule = options.width_rule;
  const auto type = options.type();
  auto layers = conv_layers(model, options.sizes, options.batches, type);
  auto heading = heading_of(options, world.size());
  Yardstick yardstick;
  if (!options.machine.empty()) {
    config::Machine machine;
    comm::agree(world, "reading the machine file", [&] { machine = config::load_machine(options.machine); });
    const plan::Simulation simulation(machine, 1);
    for (auto& layer : layers) {
      for (std::size_t d = 0; d < 3; ++d) layer.planned_ms[d] = 1e3 * simulation.seconds(layer.work[d]);
    }
    yardstick = {machine.peak(options.precision), machine.bytes_per_s, machine.name};
  }
  if (!options.plan) {
    auto place = open(world, options);
    if (!place.backend->supports(type)) {
      throw Error(ExitCode::input,
                  fmt::format("{} cannot compute in {} on this {}", place.backend->describe(), options.precision,
                              place.device() ? "device" : "processor"),
                  "use --precision fp32, or bf16 where the processor or device has it")
          .as_agreed();
    }
    heading.library = place.backend->describe();
    if (place.device()) heading.where = device::describe_device();
    const bool own_yardstick = options.machine.empty();
    if (own_yardstick) yardstick = measure_peak(world, place, type, options.repeat);
    for (auto& layer : layers) measure(world, place, type, options.repeat, layer);
    // Measured again at the end: the speed of a shared machine varies.
    if (own_yardstick) {
      const auto again = measure_peak(world, place, type, options.repeat);
      yardstick.flop_per_s = std::max(yardstick.flop_per_s, again.flop_per_s);
      yardstick.bytes_per_s = std::max(yardstick.bytes_per_s, again.bytes_per_s);
    }
  }
  if (!world.is_root()) return 0;
  const auto print = options.json ? print_conv_json : options.plan ? print_conv_plan : print_conv_table;
  print(heading, layers, yardstick);
  return 0;
}

}  // namespace

Run add_bench_conv(CLI::App& command) {
  auto options = std::make_shared<Options>();
  command.add_option("--trunk", options->trunk, "Family of the model whose convolutions are measured")
      ->check(CLI::IsMember(nn::trunk_names()))
      ->capture_default_str();
  command.add_option("--preset", options->preset, "The model by name")->capture_default_str();
  command.add_option("--width-rule", options->width_rule, "pycls or torchvision")
      ->check(CLI::IsMember({"pycls", "torchvision"}))
      ->capture_default_str();
  command.add_option("--size", options->sizes, "Side of the images, or several: 224,96")
      ->delimiter(',')
      ->check(CLI::Range(16, 4096))
      ->capture_default_str();
  command.add_option("--batch", options->batches, "Images a rank, one figure for each size")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command.add_option("--repeat", options->repeat, "Calls of which the best counts")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--precision", options->precision, "fp32, bf16 or fp16_o1")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16_o1"}))
      ->capture_default_str();
  command.add_option("--machine", options->machine, "Machine file whose peak and memory are the yardstick");
  auto* plan =
      command.add_flag("--plan", options->plan,
                       "With --machine: FLOPs, bytes, roof and planned time of each layer; nothing is measured");
  auto* on_device = command.add_flag("--device", options->device, "On the ranks' devices")->excludes(plan);
  command.add_flag("--tf32", options->tf32, "With --device: products of floats on tensor cores")->needs(on_device);
  command.add_option("--choices", options->choices, "With --device: folder that keeps which engines were fastest")
      ->needs(on_device);
  command.add_flag("--json", options->json, "Print JSON");
  return [options](const comm::Communicator& world) { return run(world, *options); };
}

}  // namespace seer::app
