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
#include <utility>

#include "bench_conv.hpp"
#include "seer/app/command.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/device/binding.hpp"
#include "seer/device/copy.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/nn/model.hpp"
#include "seer/nn/trunk.hpp"
#include "seer/plan/trial.hpp"
#include "seer/train/compute.hpp"

namespace seer::app {
namespace {

/// Keeps the last work recorded.
struct OneWork final : device::NullLedger {
  void work(const device::Work& work) override { last = work; }
  device::Work last;
};

/// Work of one call in each direction, as the planned back end records it.
std::array<device::Work, 3> work_of(const dnn::ConvShape& shape, DType type) {
  OneWork ledger;
  auto queue = device::Queue::planned(ledger);
  const auto backend = dnn::make_planned_backend();
  plan::ConvTrial trial(queue, *backend, shape, type);
  std::array<device::Work, 3> out;
  for (std::size_t d = 0; d < out.size(); ++d) {
    trial.call(static_cast<device::Work::Direction>(d));
    out[d] = ledger.last;
  }
  return out;
}

/// The trunk's convolutions for each crop size, with its number of images, activations of `type`.
std::vector<ConvLayer> conv_layers(const ConvOptions& options, DType type) {
  const nn::Model net(options.model);
  std::vector<ConvLayer> layers;
  for (std::size_t i = 0; i < options.sizes.size(); ++i) {
    const auto first = layers.size();
    for (const auto& c : nn::convolutions(net.trunk(), options.batches[i], options.sizes[i]))
      layers.push_back({.shape = c.shape, .crop = options.sizes[i], .count = c.count, .work = work_of(c.shape, type)});
    layers[first].images = true;
  }
  return layers;
}

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

std::unique_ptr<dnn::Backend> device_backend(const comm::Communicator& world, const ConvOptions& options) {
  dnn::DeviceOptions choices{.tf32 = options.tf32, .cache_dir = options.choices, .writes_cache = world.is_root()};
  choices.agree = [&world](std::string text) {
    world.broadcast(text);
    return text;
  };
  return dnn::make_backend(device::Space::device, std::move(choices));
}

Place open(const comm::Communicator& world, const ConvOptions& options) {
  if (!options.device) return {.own = nullptr, .queue = {}, .backend = dnn::make_host_backend()};
  Place place;
  comm::agree(world, "looking for a device", [&] {
    if (device::bound_device() < 0)
      throw Error(ExitCode::device,
                  fmt::format("{}: nothing was measured",
                              kHasDevices ? "no device here" : "this build of seer supports no devices"),
                  kHasDevices ? "run it where there is one for each rank; without --device the host is measured"
                              : "build it with -DSEER_CUDA=ON; without --device the host is measured");
    if (!device::sharing().empty())
      throw Error(ExitCode::device, device::sharing() + ": nothing was measured",
                  "start as many ranks a node as it has devices; without --device the host is measured");
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

/// Rate of the largest matrix product; on a device also the rate of a copy, counting bytes read and written. Keeps the
/// better rates.
void measure_peak(const comm::Communicator& world, Place& place, DType type, std::int64_t repeat, Yardstick& best) {
  const bool large = place.device() && kHasDevices;
  const std::int64_t side = large ? 8192 : 768;
  const auto space = place.queue.space;
  best.source = "matrix product of this run";
  {
    const plan::Values a(place.queue, {side, 1, 1, side}, type), b(place.queue, {side, 1, 1, side}, type);
    const auto c = device::Buffer::floats(static_cast<std::size_t>(side * side), space);
    const double ms = best_ms(world, place, repeat, [&] {
      place.backend->gemm(place.queue, side, side, side, type, a.memory.data(), dnn::Transpose::no, b.memory.data(),
                          dnn::Transpose::no, c.f32());
    });
    best.flop_per_s = std::max(best.flop_per_s, 2e3 * static_cast<double>(side * side * side) / ms);
  }
  if (!place.device()) return;
  const std::size_t bytes = std::size_t{1} << (large ? 30 : 26);
  const device::Buffer from(bytes, space), to(bytes, space);
  const double ms =
      best_ms(world, place, repeat, [&] { device::copy(place.queue, from.data(), space, to.data(), space, bytes); });
  best.bytes_per_s = std::max(best.bytes_per_s, 2e3 * static_cast<double>(bytes) / ms);
}

void check(const ConvOptions& options) {
  if (options.sizes.size() != options.batches.size()) {
    throw Error(ExitCode::input,
                fmt::format("{} sizes and {} batches were given", options.sizes.size(), options.batches.size()),
                "one batch for each size: --size 224,96 --batch 16,32")
        .as_agreed();
  }
  if (options.plan && options.machine.empty())
    throw Error(ExitCode::input, "--plan needs --machine FILE", "inputs/machines/dgx_h100.toml").as_agreed();
}

/// Measures the layers, those with most arithmetic first, until the time is over; and the yardstick unless the machine
/// file is one.
void measure(const comm::Communicator& world, const ConvOptions& options, DType type, ConvResult& result) {
  const Clock clock;
  auto place = open(world, options);
  if (!place.backend->supports(type)) {
    throw Error(ExitCode::input,
                fmt::format("{} cannot compute in {} on this {}", place.backend->describe(), options.precision,
                            place.device() ? "device" : "processor"),
                "use --precision fp32, or bf16 where the processor or device has it")
        .as_agreed();
  }
  result.library = place.backend->describe();
  if (place.device()) result.where = device::describe_device();
  const auto measure_yardstick = [&] {
    if (options.machine.empty()) measure_peak(world, place, type, options.repeat, result.yardstick);
  };
  measure_yardstick();
  std::vector<ConvLayer*> order;
  for (auto& layer : result.layers) order.push_back(&layer);
  const auto flops = [](const ConvLayer* layer) { return layer->work[0].flops * static_cast<double>(layer->count); };
  std::ranges::stable_sort(order, std::greater{}, flops);
  const auto time_left = [&] {
    return options.limit_seconds <= 0 || world.all_reduce(clock.seconds(), comm::Op::max) < options.limit_seconds;
  };
  for (auto* layer : order) {
    if (!time_left()) break;
    plan::ConvTrial trial(place.queue, *place.backend, layer->shape, type);
    for (std::size_t d = 0; d < 3 && time_left(); ++d) {
      if (!layer->has(d)) continue;
      layer->ms[d] =
          best_ms(world, place, options.repeat, [&] { trial.call(static_cast<device::Work::Direction>(d)); });
    }
    // At once: whoever stops this command keeps these lines.
    if (world.is_root()) print_progress(*layer, clock.seconds());
  }
  measure_yardstick();  // again: the speed of a shared machine varies
}

int run(const comm::Communicator& world, const ConvOptions& options) {
  check(options);
  const auto type = train::compute_type({.compute = options.precision});
  ConvResult result;
  result.layers = conv_layers(options, type);
  result.ranks = world.size();
  if (!options.machine.empty()) {
    config::Machine machine;
    comm::agree(world, "reading the machine file", [&] { machine = config::load_machine(options.machine); });
    const plan::Simulation simulation(machine, 1);
    for (auto& layer : result.layers)
      for (std::size_t d = 0; d < 3; ++d) layer.planned_ms[d] = 1e3 * simulation.seconds(layer.work[d]);
    result.yardstick = {machine.peak(options.precision), machine.bytes_per_s, machine.name};
  }
  if (!options.plan) measure(world, options, type, result);
  if (world.is_root()) (options.json ? print_conv_json : print_conv_table)(options, result);
  return 0;
}

}  // namespace

Run add_bench_conv(CLI::App& command) {
  auto options = std::make_shared<ConvOptions>();
  options->model.preset = "400mf";
  command.add_option("--trunk", options->model.trunk, "Family of the model whose convolutions are measured")
      ->check(CLI::IsMember(nn::trunk_names()));
  command.add_option("--preset", options->model.preset, "The model by name");
  command.add_option("--width-rule", options->model.width_rule, "pycls or torchvision")
      ->check(CLI::IsMember({"pycls", "torchvision"}));
  command.add_option("--size", options->sizes, "Side of the images, or several: 224,96")
      ->delimiter(',')
      ->check(CLI::Range(16, 4096));
  command.add_option("--batch", options->batches, "Images a rank, one figure for each size")
      ->delimiter(',')
      ->check(CLI::Range(1, 65536));
  command.add_option("--repeat", options->repeat, "Calls of which the best counts")->check(CLI::Range(1, 1000000));
  command
      .add_option("--limit-seconds", options->limit_seconds,
                  "Begin no further measurement after so many seconds; 0: none is left out")
      ->check(CLI::Range(0.0, 1e9));
  command.add_option("--precision", options->precision, "fp32, bf16 or fp16_o1")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16_o1"}));
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
