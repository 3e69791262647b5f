// SPDX-License-Identifier: Apache-2.0
#include "seer/plan/calibrate.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/device/memory.hpp"
#include "seer/device/session.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/kernels/activation.hpp"
#include "seer/kernels/batchnorm.hpp"
#include "seer/plan/simulation.hpp"
#include "seer/train/memory_plan.hpp"

namespace seer::plan {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

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

/// A tensor of small numbers.
struct Values {
  device::Buffer memory;
  device::Tensor tensor;
  Values(device::Shape shape, DType type)
      : memory(static_cast<std::size_t>(shape.elems()) * dtype_bytes(type)), tensor{memory.data(), shape, type} {
    device::Queue queue;
    if (type == DType::f32) {
      for (std::int64_t i = 0; i < shape.elems(); ++i) {
        tensor.f32()[i] = static_cast<float>((i * 2654435761U) >> 8 & 0xffff) * 0x1p-16F - 0.5F;
      }
    } else {
      kernels::fill(queue, tensor, 0.25F);
    }
  }
};

const char* precision_of(DType type) {
  return type == DType::bf16 ? "bf16" : type == DType::f16 ? "fp16_o1" : "fp32";
}

double gemm_flops(const Stopwatch& time, dnn::Backend& backend, DType type, std::int64_t side) {
  const Values a({side, 1, 1, side}, type), b({side, 1, 1, side}, type);
  const Values c({side, 1, 1, side}, DType::f32);
  device::Queue queue;
  const double s = time([&] {
    backend.gemm(queue, side, side, side, type, a.tensor.data, dnn::Transpose::no, b.tensor.data, dnn::Transpose::yes,
                 c.tensor.f32());
  });
  return 2 * std::pow(static_cast<double>(side), 3) / s;
}

config::MachineRate conv_rate(const Stopwatch& time, dnn::Backend& backend, const config::Machine& machine, DType type,
                              double peak, const char* kind, const dnn::ConvShape& s, std::int64_t width) {
  const Values src({s.n, s.h, s.w, s.c_in}, type), d_dst({s.n, s.out_h(), s.out_w(), s.c_out}, type);
  const Values dst(d_dst.tensor.shape, type), d_src(src.tensor.shape, type);
  const Values weight({1, 1, 1, s.weight_elems()}, DType::f32), d_weight({1, 1, 1, s.weight_elems()}, DType::f32);
  device::Queue queue;
  // A new version at every call, as after every update: packing is part of the time.
  std::uint64_t version = 0;
  const double flops = 2 * static_cast<double>(s.macs());
  // The plan itself adds this time for the weights.
  const double weights_s =
      Simulation(machine, 1).seconds(device::Work{.bytes = 2.0 * 4 * static_cast<double>(s.weight_elems())});
  config::MachineRate rate{.kind = kind, .precision = precision_of(type), .width = static_cast<double>(width)};
  const auto share = [&](const std::function<void()>& call) {
    const double whole_s = time(call);
    return flops / std::max(whole_s - weights_s, whole_s / 2) / peak;
  };
  rate.forward = share([&] {
    backend.conv_forward(queue, s, src.tensor, {weight.tensor.data, ++version}, dst.tensor);
  });
  rate.backward_data = share([&] {
    backend.conv_backward_data(queue, s, d_dst.tensor, {weight.tensor.data, ++version}, d_src.tensor);
  });
  rate.backward_weights = share([&] {
    backend.conv_backward_weights(queue, s, src.tensor, d_dst.tensor, d_weight.tensor.f32(), dnn::Accumulate::yes);
  });
  backend.set_packed_weights_limit(0);  // later tensors may get the same addresses, so drop the packed copies
  backend.set_packed_weights_limit(std::size_t{1} << 30);
  return rate;
}

/// A stage's first block has stride 2 and the same arithmetic. Assumes one in four, as in the recipes.
config::MachineRate mixed(config::MachineRate straight, const config::MachineRate& strided) {
  const auto mix = [](double& share, double other) { share = 4 / (3 / share + 1 / other); };
  mix(straight.forward, strided.forward);
  mix(straight.backward_data, strided.backward_data);
  mix(straight.backward_weights, strided.backward_weights);
  return straight;
}

/// A shared machine may be slower just while the peak is measured: the best rate of all becomes the peak.
void raise_peak(config::Machine& machine, const char* precision, double& peak) {
  double best = 1;
  for (const auto& r : machine.rates) {
    if (r.precision == precision) best = std::max({best, r.forward, r.backward_data, r.backward_weights});
  }
  peak *= best;
  for (auto& r : machine.rates) {
    if (r.precision != precision) continue;
    for (double* share : {&r.forward, &r.backward_data, &r.backward_weights}) *share /= best;
  }
}

/// Widths at RegNetY's resolutions. Those of 400MF, not multiples of 16, are slower than others near them. The number
/// of images is so large that a layer's activations come from memory, as in a run, on all ranks at once.
void measure_products(const Stopwatch& time, dnn::Backend& backend, config::Machine& machine) {
  constexpr std::int64_t kImages = 12;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    double& peak = type == DType::f32 ? machine.fp32 : type == DType::bf16 ? machine.bf16 : machine.fp16_o1;
    if (!backend.supports(type)) {
      peak = machine.bf16;  // such a run is refused at set-up anyway
      continue;
    }
    peak = std::max(gemm_flops(time, backend, type, 768), gemm_flops(time, backend, type, 768));
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
      const std::int64_t channels = std::max<std::int64_t>(width, 224 / width * width);
      const std::int64_t side = width >= 24 && width < 100 ? 28 : 14;
      dnn::ConvShape s{.n = kImages,
                       .h = side,
                       .w = side,
                       .c_in = channels,
                       .c_out = channels,
                       .kernel = 3,
                       .pad = 1,
                       .groups = channels / width};
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
      const Values a({width, 1, 1, 2048}, type), b({1024, 1, 1, 2048}, type);
      const Values c({width, 1, 1, 1024}, DType::f32);
      device::Queue queue;
      const double s = time([&] {
        backend.gemm(queue, width, 1024, 2048, type, a.tensor.data, dnn::Transpose::no, b.tensor.data,
                     dnn::Transpose::yes, c.tensor.f32());
      });
      const double share = 2.0 * static_cast<double>(width) * 1024 * 2048 / s / peak;
      machine.rates.push_back({"gemm", precision_of(type), static_cast<double>(width), share, share, share});
    }
    raise_peak(machine, precision_of(type), peak);
  }
  log::finish_progress();
}

/// Mean over the passes of a block's forward and backward; bytes as the kernels count them.
double stream_bytes_per_s(const Stopwatch& time, std::int64_t elems, DType type = DType::f32) {
  const std::int64_t c = 224;
  const device::Shape shape{1, std::max<std::int64_t>(elems / c, 1), 1, c};
  const Values x(shape, type), y(shape, type), d_y(shape, type);
  std::vector<float> one(static_cast<std::size_t>(c), 1.0F), zero(static_cast<std::size_t>(c), 0.0F);
  std::vector<double> sums(static_cast<std::size_t>(1 + 2 * c), 1.0);
  const kernels::BatchNorm bn{zero.data(), one.data(), one.data(), zero.data()};
  const kernels::BatchNormGradient g{.d_y = d_y.tensor, .relu = kernels::Relu::yes};
  device::Queue queue;
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
    machine.node.bytes_per_s =
        ring * static_cast<double>(large.size() * sizeof(float)) / time([&] { world.all_reduce(std::span(large)); });
    const double half = ring / 2 * static_cast<double>(large.size() * sizeof(float));
    machine.reduce_scatter_speedup =
        half / time([&] { world.reduce_scatter_parts(std::span(large)); }) / machine.node.bytes_per_s;
  }
  machine.cluster = machine.node;
}

/// Layers measured one by one find more in the cache than in an update, and they do not cover all shapes of a network.
/// The cost of waiting for other ranks shows only in whole updates.
void correct_by_updates(const comm::Communicator& world, dnn::Backend& backend, int updates, config::Machine& machine) {
  machine.meeting_s = meeting_beside_message_s(machine, world, 2 * updates);
  for (const DType type : {DType::f32, DType::bf16}) {
    if (!backend.supports(type)) continue;
    const char* precision = precision_of(type);
    const double longer = products_beside_plan(machine, precision, world, updates);
    for (auto& r : machine.rates) {
      if (r.precision != precision) continue;
      for (double* share : {&r.forward, &r.backward_data, &r.backward_weights}) *share /= longer;
    }
    raise_peak(machine, precision, type == DType::f32 ? machine.fp32 : machine.bf16);
  }
}

/// The file for measuring storage; always removed.
class TrialFile {
 public:
  explicit TrialFile(const std::string& folder) : path_(folder + "/.seer-calibrate") {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd_ < 0) fail("create");
  }
  ~TrialFile() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  TrialFile(const TrialFile&) = delete;
  TrialFile& operator=(const TrialFile&) = delete;

  void write(const std::vector<char>& block) const {
    pass("write", block.size(), ::write(fd_, block.data(), block.size()));
  }
  void read(std::vector<char>& block, off_t at) const {
    pass("read", block.size(), ::pread(fd_, block.data(), block.size(), at));
  }
  void sync() const {
    if (::fsync(fd_) != 0) fail("sync");
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
  }

 private:
  void pass(const char* what, std::size_t wanted, ssize_t done) const {
    if (done >= 0 && static_cast<std::size_t>(done) < wanted) errno = ENOSPC;  // as writing the rest would
    if (done < 0 || static_cast<std::size_t>(done) < wanted) fail(what);
  }
  [[noreturn]] void fail(const char* what) const {
    throw Error(ExitCode::file, fmt::format("cannot {} {}: {}", what, path_, std::strerror(errno)),
                "give --folder one that you may write to, with 256 MiB free");
  }

  std::string path_;
  int fd_ = -1;
};

/// Measures how fast the root writes and reads a file.
void measure_storage(const comm::Communicator& world, const std::string& folder, config::Machine& machine) {
  comm::agree(world, "measuring the file system", [&] {
    if (!world.is_root()) return;
    std::vector<char> block(std::size_t{16} << 20, 'x');
    constexpr int kBlocks = 16;
    const TrialFile file(folder);
    const Clock writing;
    for (int i = 0; i < kBlocks; ++i) file.write(block);
    file.sync();
    const double bytes = kBlocks * static_cast<double>(block.size());
    machine.write_bytes_per_s = bytes / writing.seconds();
    const Clock reading;
    for (int i = 0; i < kBlocks; ++i) file.read(block, i * static_cast<off_t>(block.size()));
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
  if (backend->supports(DType::bf16)) {
    machine.half_speedup = stream_bytes_per_s(time, kLarge, DType::bf16) / machine.bytes_per_s;
  }
  machine.cache_bytes = 4.0 * kSmall * 8;
  machine.cache_speedup = stream_bytes_per_s(time, kSmall) / machine.bytes_per_s;
  const Values tiny({1, 1, 1, 16}, DType::f32);
  device::Queue queue;
  machine.launch_s = time([&] { kernels::fill(queue, tiny.tensor, 0); });
  measure_products(time, *backend, machine);
  measure_network(world, time, machine);
  correct_by_updates(world, *backend, static_cast<int>(std::clamp(options.seconds * 50, 1.0, 7.0)), machine);
  // Adds what the libraries allocate as they run: compiled primitives, message buffers.
  machine.reserved_bytes = world.all_reduce(libraries, comm::Op::max) + static_cast<double>(train::kLibrariesGrowBytes);
  return machine;
}

}  // namespace seer::plan
