// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/calibrate.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/session.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/plan/plan.hpp"
#include "seer/plan/trial.hpp"
#include "seer/train/compute.hpp"
#include "seer/train/learner.hpp"

namespace seer::plan {
namespace {

/// Seconds of a call: the median over calls, of the slowest rank. If ranks share cores, the median of means over
/// several time slices: a call that no other rank interrupts would show the speed of a whole core.
class Stopwatch {
 public:
  Stopwatch(const comm::Communicator& world, double seconds, bool shared_cores)
      : world_(world), seconds_(seconds), window_s_(shared_cores ? std::min(0.04, seconds / 3) : 0) {}
  double operator()(const std::function<void()>& call) const {
    call();  // plans, packs, touches pages
    world_.barrier();
    const Clock trial;
    call();
    // The same number of calls on every rank: the call may be a collective.
    const double once = world_.all_reduce(std::max(trial.seconds(), 1e-9), comm::Op::max);
    const auto calls = static_cast<int>(std::clamp(window_s_ / once, 1.0, 10000.0));
    std::vector<double> times(static_cast<std::size_t>(std::clamp(seconds_ / (once * calls), 3.0, 10000.0)));
    world_.barrier();
    for (double& time : times) {
      const Clock window;
      for (int i = 0; i < calls; ++i) call();
      time = window.seconds() / calls;
    }
    return world_.all_reduce(median(std::move(times)), comm::Op::max);
  }

 private:
  const comm::Communicator& world_;
  double seconds_, window_s_;
};

/// FLOP/s of [m, k] times [k, n].
double gemm_flops(const Stopwatch& time, dnn::Backend& backend, DType type, std::int64_t m, std::int64_t n,
                  std::int64_t k) {
  device::Queue queue;
  const Values a(queue, {m, 1, 1, k}, type), b(queue, {n, 1, 1, k}, type);
  const auto c = device::Buffer::floats(static_cast<std::size_t>(m * n));
  const double s = time([&] {
    backend.gemm(queue, m, n, k, type, a.tensor.data, dnn::Transpose::no, b.tensor.data, dnn::Transpose::yes, c.f32());
  });
  return 2 * static_cast<double>(m * n * k) / s;
}

config::MachineRate conv_rate(const Stopwatch& time, dnn::Backend& backend, const config::Machine& machine, DType type,
                              double peak, const char* kind, const dnn::ConvShape& s, std::int64_t width) {
  device::Queue queue;
  ConvTrial trial(queue, backend, s, type);
  // The plan itself adds this time for the weights.
  const double weights_s =
      Simulation(machine, 1).seconds(device::Work{.bytes = 2.0 * 4 * static_cast<double>(s.weight_elems())});
  config::MachineRate rate{.kind = kind, .precision = precision_of(type), .width = static_cast<double>(width)};
  for (std::size_t d = 0; d < kShares.size(); ++d) {
    const double whole_s = time([&] { trial.call(static_cast<device::Work::Direction>(d)); });
    rate.*kShares[d] = 2 * static_cast<double>(s.macs()) / std::max(whole_s - weights_s, whole_s / 2) / peak;
  }
  return rate;
}

/// A stage's first block has stride 2 and the same arithmetic. Assumes one in four, as in the recipes.
config::MachineRate mixed(config::MachineRate straight, const config::MachineRate& strided) {
  for (const auto share : kShares) straight.*share = 4 / (3 / straight.*share + 1 / strided.*share);
  return straight;
}

void divide_shares(config::Machine& machine, const char* precision, double by) {
  for (auto& r : machine.rates) {
    if (r.precision != precision) continue;
    for (const auto share : kShares) r.*share /= by;
  }
}

double& peak_of(config::Machine& machine, DType type) {
  return type == DType::f32 ? machine.fp32 : type == DType::bf16 ? machine.bf16 : machine.fp16_o1;
}

/// A shared machine may be slower just while the peak is measured: the best rate of all becomes the peak.
void raise_peak(config::Machine& machine, DType type) {
  double best = 1;
  for (const auto& r : machine.rates)
    if (r.precision == precision_of(type)) best = std::max({best, r.forward, r.backward_data, r.backward_weights});
  peak_of(machine, type) *= best;
  divide_shares(machine, precision_of(type), best);
}

/// Widths at RegNetY's resolutions. Those of 400MF, not multiples of 16, are slower than others near them. The number
/// of images is so large that a layer's activations come from memory, as in a run, on all ranks at once.
void measure_products(const Stopwatch& time, dnn::Backend& backend, config::Machine& machine) {
  constexpr std::int64_t kImages = 12;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    double& peak = peak_of(machine, type);
    if (!backend.supports(type)) {
      peak = machine.bf16;  // such a run is refused at set-up anyway
      continue;
    }
    peak = std::max(gemm_flops(time, backend, type, 768, 768, 768), gemm_flops(time, backend, type, 768, 768, 768));
    struct At {
      std::int64_t width, side;
    };
    for (const auto [width, side] : {At{32, 112}, At{48, 56}, At{64, 56}, At{104, 28}, At{112, 56}, At{208, 14},
                                     At{224, 56}, At{440, 7}, At{448, 28}, At{896, 14}, At{2016, 7}}) {
      log::progress(fmt::format("{} pointwise {}", precision_of(type), width));
      const dnn::ConvShape s{.n = kImages, .h = side, .w = side, .c_in = width, .c_out = width};
      machine.rates.push_back(conv_rate(time, backend, machine, type, peak, "pointwise", s, width));
    }
    for (const std::int64_t width : {8, 16, 24, 56, 112, 232, 328}) {
      log::progress(fmt::format("{} grouped {}", precision_of(type), width));
      const std::int64_t c = std::max<std::int64_t>(width, 224 / width * width);
      const std::int64_t side = width >= 24 && width < 100 ? 28 : 14;
      dnn::ConvShape s{
          .n = kImages, .h = side, .w = side, .c_in = c, .c_out = c, .kernel = 3, .pad = 1, .groups = c / width};
      const auto straight = conv_rate(time, backend, machine, type, peak, "grouped", s, width);
      s.h = s.w = 2 * side;
      s.stride = 2;
      machine.rates.push_back(mixed(straight, conv_rate(time, backend, machine, type, peak, "grouped", s, width)));
    }
    const dnn::ConvShape stem{
        .n = kImages, .h = 224, .w = 224, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1};
    machine.rates.push_back(conv_rate(time, backend, machine, type, peak, "dense", stem, 3));
    for (const std::int64_t width : {16, 64, 256, 1024}) {
      // A layer of the head: few rows; the weights come from memory.
      const double share = gemm_flops(time, backend, type, width, 1024, 2048) / peak;
      machine.rates.push_back({"gemm", precision_of(type), static_cast<double>(width), share, share, share});
    }
    raise_peak(machine, type);
  }
  log::finish_progress();
}

/// Mean over the passes of a block's forward and backward; bytes as the kernels count them.
double stream_bytes_per_s(const Stopwatch& time, std::int64_t elems, DType type = DType::f32) {
  const std::int64_t c = 224;
  const device::Shape shape{1, std::max<std::int64_t>(elems / c, 1), 1, c};
  device::Queue queue;
  const Values x(queue, shape, type), y(queue, shape, type), d_y(queue, shape, type);
  std::vector<float> one(static_cast<std::size_t>(c), 1.0F), zero(static_cast<std::size_t>(c), 0.0F);
  std::vector<double> sums(static_cast<std::size_t>(1 + 2 * c), 1.0);
  const kernels::BatchNorm bn{zero.data(), one.data(), one.data(), zero.data()};
  const kernels::BatchNormGradient g{.d_y = d_y.tensor, .relu = kernels::Relu::yes};
  const auto bytes = static_cast<double>(x.tensor.bytes());
  const double seconds =
      time([&] { kernels::batchnorm_sums(queue, x.tensor, sums.data()); }) +
      time([&] { kernels::batchnorm_apply(queue, x.tensor, bn, kernels::Relu::yes, y.tensor); }) +
      time([&] { kernels::batchnorm_backward_sums(queue, x.tensor, bn, g, sums.data()); }) +
      time([&] { kernels::batchnorm_backward_apply(queue, x.tensor, bn, g, sums.data(), 1e9, y.tensor); });
  return (1 + 2 + 2 + 3) * bytes / seconds;
}

void measure_network(const comm::Communicator& world, const Stopwatch& time, config::Machine& machine) {
  if (world.size() == 1) {
    machine.node = {1e-6, 1e10};
  } else {
    std::vector<float> small(256), large(std::size_t{4} << 20);
    machine.node.latency_s =
        time([&] { world.all_reduce(std::span(small)); }) / (2 * std::ceil(std::log2(world.size())));
    const double ring = 2.0 * (world.size() - 1) / world.size();
    const auto bytes = static_cast<double>(large.size() * sizeof(float));
    machine.node.bytes_per_s = ring * bytes / time([&] { world.all_reduce(std::span(large)); });
    machine.reduce_scatter_speedup =
        ring / 2 * bytes / time([&] { world.reduce_scatter_parts(std::span(large)); }) / machine.node.bytes_per_s;
  }
  machine.cluster = machine.node;
}

/// A medium-sized network with the crops of most recipes.
config::Config usual_job(const std::string& precision, int ranks, int images, int bn_group_size) {
  config::Config config;
  config.model.preset = "800mf";
  config.head = {.dims = {768, 512, 512, 128}, .prototypes = 1000};
  config.crops = {{2, 224, {0.14, 1.0}}, {4, 96, {0.05, 0.14}}};
  config.data.global_batch = static_cast<std::int64_t>(images) * ranks;
  config.data.source = "crops";
  config.parallel.bn_group_size = bn_group_size;
  config.precision.compute = precision;
  config.checkpoint.async = false;
  config.schedule.warmup_updates = 0;
  config.schedule.total_updates = 1000;
  return config;
}

/// Runs updates of a job on made-up pixels.
class Job {
 public:
  Job(config::Config config, const comm::Communicator& world)
      : config_(std::move(config)),
        world_(world),
        learner_(config_, world, phases_, train::plan_memory(config_, world), train::make_backend(config_, world)),
        crops_(config_, world, device::Space::host) {
    update_ = learner_.model().parameters().thawed_after();  // the job's usual update freezes nothing for a time
    update_s();                                              // plans, packs, touches pages
  }
  /// Seconds of the slowest rank.
  double update_s() {
    world_.barrier();
    const Clock clock;
    learner_.update(crops_.batch, update_++, 0.01);
    return world_.all_reduce(clock.seconds(), comm::Op::max);
  }

 private:
  config::Config config_;
  const comm::Communicator& world_;
  train::Phases phases_;
  train::Learner learner_;
  MadeUpBatch crops_;
  std::int64_t update_ = 0;
};

Report planned(const config::Config& config, const config::Machine& machine, const comm::Communicator& world) {
  return predict(config, machine, {.ranks = world.size(), .ranks_per_node = world.node().size()});
}

/// Measured time of convolutions and products in updates of RegNetY-800MF, divided by their planned time on this
/// machine.
double products_beside_plan(const config::Machine& machine, const std::string& precision,
                            const comm::Communicator& world, int updates) {
  constexpr double kLeast = 0.5, kMost = 2;  // a factor outside these limits has another cause
  const auto config = usual_job(precision, world.size(), 4, 1);
  const auto report = planned(config, machine, world);
  const double others_s = report.step_s - report.product_s;
  Job job(config, world);
  std::vector<double> seconds;
  for (int t = 0; t < updates; ++t) seconds.push_back(job.update_s());
  return std::clamp((median(seconds) - others_s) / report.product_s, kLeast, kMost);
}

/// Seconds that a collective costs the waiting ranks in addition to its planned time: the difference between updates of
/// RegNetY-800MF with and without synchronised BatchNorm. Ranks are never equally fast, and ranks that share a core
/// take turns.
double meeting_beside_message_s(const config::Machine& machine, const comm::Communicator& world, int updates) {
  if (world.size() == 1) return 0;
  constexpr int kImages = 2;
  const auto meeting = usual_job("fp32", world.size(), kImages, world.size());
  const auto apart = usual_job("fp32", world.size(), kImages, 1);
  const auto calls = [](const Report& report) {
    double sum = 0;
    for (const auto& t : report.traffic) sum += t.calls;
    return sum;
  };
  const auto with = planned(meeting, machine, world), without = planned(apart, machine, world);
  Job meets(meeting, world), stays(apart, world);
  std::vector<double> more_s;  // alternating: the machine's speed changes from second to second
  for (int t = 0; t < updates; ++t) more_s.push_back(meets.update_s() - stays.update_s());
  return std::max(0.0, (median(more_s) - (with.exposed_s - without.exposed_s)) / (calls(with) - calls(without)));
}

/// Layers measured one by one find more in the cache than in an update, and they do not cover all shapes of a network.
/// The cost of waiting for other ranks shows only in whole updates.
void correct_by_updates(const comm::Communicator& world, dnn::Backend& backend, int updates, config::Machine& machine) {
  machine.meeting_s = meeting_beside_message_s(machine, world, 2 * updates);
  for (const DType type : {DType::f32, DType::bf16}) {
    if (!backend.supports(type)) continue;
    divide_shares(machine, precision_of(type), products_beside_plan(machine, precision_of(type), world, updates));
    raise_peak(machine, type);
  }
}

/// Measures how fast the root writes and reads a file, which is always removed.
void measure_storage(const comm::Communicator& world, const std::string& folder, config::Machine& machine) {
  comm::agree(world, "measuring the file system", [&] {
    if (!world.is_root()) return;
    constexpr int kBlocks = 16;
    std::vector<char> block(std::size_t{16} << 20, 'x');
    const double bytes = kBlocks * static_cast<double>(block.size());
    const std::string path = folder + "/.seer-calibrate";
    const auto require = [&](bool done, const char* what) {
      if (done) return;
      throw Error(ExitCode::file, fmt::format("cannot {} {}: {}", what, path, std::strerror(errno)),
                  "choose a --folder where you may write and 256 MiB are free");
    };
    const auto require_block = [&](ssize_t done, const char* what) {
      if (done >= 0 && static_cast<std::size_t>(done) < block.size()) errno = ENOSPC;  // as writing the rest would
      require(done == static_cast<ssize_t>(block.size()), what);
    };
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd >= 0, "create");
    const std::shared_ptr<void> remover(nullptr, [&](void*) {
      ::close(fd);
      ::unlink(path.c_str());
    });
    const Clock writing;
    for (int i = 0; i < kBlocks; ++i) require_block(::write(fd, block.data(), block.size()), "write");
    require(::fsync(fd) == 0, "sync");
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    machine.write_bytes_per_s = bytes / writing.seconds();
    const Clock reading;
    for (int i = 0; i < kBlocks; ++i)
      require_block(::pread(fd, block.data(), block.size(), i * static_cast<off_t>(block.size())), "read");
    machine.read_bytes_per_s = bytes / reading.seconds();
  });
}

}  // namespace

config::Machine calibrate(const comm::Communicator& world, const CalibrateOptions& options) {
  const auto libraries = static_cast<double>(device::resident_bytes());
  config::Machine machine;
  machine.backend = "host";
  const auto node_ranks = world.node().size();
  const auto cores = ::sysconf(_SC_NPROCESSORS_ONLN);
  machine.name = fmt::format("this machine, ranks: {}, cores: {}", node_ranks, cores);
  const Stopwatch time(world, options.seconds, node_ranks > cores);
  machine.ranks_per_node = node_ranks;
  machine.processor = device::processor();
  machine.cores_per_rank = device::threads();
  machine.reader_cores = std::max(0.0, static_cast<double>(cores) / node_ranks - device::threads());
  machine.overlap = 0;  // all cores compute
  machine.rank_bytes = static_cast<double>(device::available_bytes()) / node_ranks;
  // First, because the folder or the shards may be missing and everything else takes a minute.
  measure_storage(world, options.folder, machine);
  machine.decode_pixels_per_s = 6e7;  // one core of a server processor of 2020 to 2024; --shards measures it
  machine.crop_pixels_per_s = 2.5e7;
  if (!options.shards.empty()) {
    config::Config data;
    data.data.shards = options.shards;
    measure_data(world, data, machine);
  }
  const auto backend = dnn::make_host_backend();
  constexpr std::int64_t kLarge = std::int64_t{8} << 20, kSmall = std::int64_t{64} << 10;
  machine.bytes_per_s = stream_bytes_per_s(time, kLarge);
  if (backend->supports(DType::bf16))
    machine.half_speedup = stream_bytes_per_s(time, kLarge, DType::bf16) / machine.bytes_per_s;
  machine.cache_bytes = 4.0 * kSmall * 8;
  machine.cache_speedup = stream_bytes_per_s(time, kSmall) / machine.bytes_per_s;
  device::Queue queue;
  const Values tiny(queue, {1, 1, 1, 16}, DType::f32);
  machine.launch_s = time([&] { kernels::fill(queue, tiny.tensor, 0); });
  measure_products(time, *backend, machine);
  measure_network(world, time, machine);
  correct_by_updates(world, *backend, static_cast<int>(std::clamp(options.seconds * 50, 1.0, 7.0)), machine);
  // Adds what the libraries allocate as they run: compiled primitives, message buffers.
  machine.reserved_bytes = world.all_reduce(libraries, comm::Op::max) + static_cast<double>(train::kLibrariesGrowBytes);
  return machine;
}

}  // namespace seer::plan
