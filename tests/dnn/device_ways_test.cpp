// SPDX-License-Identifier: Apache-2.0
// The ways to compute a convolution on a device: which of them exist for a described device that is not present, and
// what each computes on a device that is present.
#if defined(SEER_CUDA)
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "../../src/dnn/cuda/cudnn_conv.hpp"
#include "naive.hpp"
#include "places.hpp"
#include "seer/base/error.hpp"
#include "stored.hpp"

namespace seer::dnn {
namespace {

/// Shapes with workspaces so small that some ways run in pieces.
struct Tight {
  ConvShape shape;
  std::size_t workspace_bytes;
};
const Tight kTight[] = {
    {{.n = 4, .h = 16, .w = 16, .c_in = 30, .c_out = 30, .kernel = 3, .pad = 1, .groups = 2}, std::size_t{160} << 10},
    {{.n = 5, .h = 16, .w = 16, .c_in = 48, .c_out = 48, .kernel = 3, .stride = 2, .pad = 1, .groups = 2},
     std::size_t{112} << 10},
    {{.n = 4, .h = 16, .w = 16, .c_in = 21, .c_out = 27}, std::size_t{96} << 10},
};

#if CUDNN_VERSION >= 90800
/// An H100 as cuDNN describes it: everything except execution works without one.
const char kH100[] =
    R"({"maxGridSize":[2147483647,65535,65535],"maxBlockSize":[1024,1024,64],"regsPerBlock":65536,)"
    R"("multiProcessorCount":132,"smClockRateKHz":1980000,"memClockRateKHz":2619000,"l2CacheSize":52428800,)"
    R"("warpSize":32,"maxSharedMemoryPerBlock":49152,"maxSharedMemoryPerBlockOptin":232448,)"
    R"("reservedSharedMemoryPerBlock":1024,"maxRegistersPerSM":65536,"pciDeviceId":0,"maxCtasPerSM":32,)"
    R"("maxThreadsPerBlock":1024,"maxThreadsPerSM":2048,"isTccDriver":0,"supportCoopLaunch":1,"deviceVer":900,)"
    R"("driverVer":13000,"cudaDeviceId":0,"totalGlobalMem":85000000000,"deviceName":"NVIDIA H100 80GB HBM3"})";

class DescribedDevice : public testing::TestWithParam<std::tuple<DType, Direction>> {
 protected:
  void SetUp() override {
    try {
      properties = cudnn::Descriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
      properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, sizeof kH100 - 1, kH100).finalize();
    } catch (const cudnn::Failure& failure) {
      GTEST_SKIP() << "not run: this cuDNN describes devices in another way: " << failure.what();
    }
  }
  cudnn::Descriptor properties;
  cudnn::Target target{.handle = nullptr, .properties = &properties};
  const DType type = std::get<0>(GetParam());
  const Direction direction = std::get<1>(GetParam());

  /// The ways whose engines can be made ready.
  std::vector<Way> usable(const ConvShape& shape, const DeviceOptions& options) {
    std::vector<Way> found;
    for (auto& way : ways(target, options, direction, shape, type, 16).all) {
      try {
        if (!way.product) way.workspace_bytes += cudnn::Plan(target, way.engine).workspace_bytes();
        if (way.workspace_bytes <= options.workspace_bytes) found.push_back(std::move(way));
      } catch (const cudnn::Failure&) {
      }
    }
    return found;
  }
  static bool any_named(const std::vector<Way>& found, const std::string& part) {
    return std::any_of(found.begin(), found.end(),
                       [&](const Way& way) { return way.name.find(part) != std::string::npos; });
  }
};

// Shapes of the RegNets: stem, widening shortcut, grouped with widths of 264 and 1010, and the tests' odd ones.
const ConvShape kShapes[] = {
    {.n = 32, .h = 224, .w = 224, .c_in = 3, .c_out = 32, .kernel = 3, .stride = 2, .pad = 1},
    {.n = 32, .h = 28, .w = 28, .c_in = 528, .c_out = 1056},
    {.n = 32, .h = 28, .w = 28, .c_in = 528, .c_out = 1056, .stride = 2},
    {.n = 32, .h = 28, .w = 28, .c_in = 1056, .c_out = 1056, .kernel = 3, .stride = 2, .pad = 1, .groups = 4},
    {.n = 8, .h = 28, .w = 28, .c_in = 2020, .c_out = 2020, .kernel = 3, .pad = 1, .groups = 2},
    {.n = 2, .h = 7, .w = 5, .c_in = 24, .c_out = 24, .kernel = 3, .pad = 1, .groups = 3},
    {.n = 1, .h = 5, .w = 4, .c_in = 15, .c_out = 21, .kernel = 3, .pad = 1, .groups = 3},
    {.n = 1, .h = 7, .w = 8, .c_in = 16, .c_out = 16, .kernel = 5, .stride = 2, .pad = 2, .groups = 2},
};

TEST_P(DescribedDevice, HasAnEngineForEachShape) {
  for (const bool deterministic : {false, true}) {
    for (const auto& s : kShapes) {
      DeviceOptions options;
      options.deterministic = deterministic;
      const auto found = usable(s, options);
      std::string all;
      for (const auto& way : found) all += way.name + "; ";
      EXPECT_FALSE(found.empty()) << "channels " << s.c_in << " kernel " << s.kernel << " groups " << s.groups;
      if (!deterministic) RecordProperty("c" + std::to_string(s.c_in) + "_g" + std::to_string(s.groups), all);
    }
  }
}

TEST_P(DescribedDevice, OffersPaddedWaysForOddWidthsOfHalfPrecision) {
  EXPECT_EQ(any_named(usable(kShapes[4], {}), "padded"), type != DType::f32);
}

// 256GF's and 16GF's first layers at 224 pixels: over all images at once, each engine with tensor cores that needs a
// workspace needs more than 1 GiB, and so do copies. Where there is a driver, an engine without one is proposed as
// well.
TEST_P(DescribedDevice, LargeEarlyLayersKeepTheirTensorCores) {
  if (type == DType::f32) return;
  const auto early = [](std::int64_t n, std::int64_t channels) {
    return ConvShape{.n = n,
                     .h = 112,
                     .w = 112,
                     .c_in = channels,
                     .c_out = channels,
                     .kernel = 3,
                     .stride = 2,
                     .pad = 1,
                     .groups = 2};
  };
  for (const auto& s : {early(64, 746), early(61, 746), early(128, 528), early(256, 224)}) {
    const auto at = testing::Message() << "channels " << s.c_in << " n " << s.n;
    const auto found = usable(s, {});
    std::int64_t most = 0;
    for (const auto& way : found) {
      if (!way.tensor_cores) continue;
      EXPECT_EQ(s.n % way.shape.n, 0) << at << way.name;
      if (way.workspace_bytes == copies_of(way, direction, type).bytes && way.shape.n == s.n) continue;
      EXPECT_TRUE(way.name.starts_with("pieces" + std::to_string(way.shape.n) + ":")) << at << way.name;
      most = std::max(most, way.shape.n);
    }
    EXPECT_EQ(most, s.n == 61 ? 1 : s.n / 2) << at << ": as many images as fit; one if their number is prime";
    const auto offered = ways(target, {}, direction, s, type, 16);
    EXPECT_FALSE(offered.tensor_cores_left_out) << at;
    EXPECT_EQ(any_named(offered.all, ":padded"), s.c_in == 746) << at;
    if (direction != Direction::backward_weights) continue;
    EXPECT_TRUE(any_named(found, ":wide:eng")) << at;
    EXPECT_TRUE(any_named(found, ":rounded:eng")) << at;
  }
}

TEST_P(DescribedDevice, SaysWhereNotOneImageFits) {
  const ConvShape s{
      .n = 4, .h = 112, .w = 112, .c_in = 746, .c_out = 746, .kernel = 3, .stride = 2, .pad = 1, .groups = 2};
  DeviceOptions options;
  options.workspace_bytes = std::size_t{1} << 20;
  EXPECT_EQ(ways(target, options, direction, s, type, 16).tensor_cores_left_out, type != DType::f32);
}

TEST_P(DescribedDevice, RoundsGradientsOfWeightsOnlyWhereAllowed) {
  for (const auto& s : kShapes) {
    const auto round = [&](bool floats) {
      DeviceOptions options;
      options.float_weight_gradients = floats;
      const auto found = usable(s, options);
      EXPECT_EQ(any_named(found, "wide:"), type != DType::f32 && direction == Direction::backward_weights);
      for (const auto& way : found) {
        EXPECT_EQ(way.gradient != DType::f32 && direction == Direction::backward_weights,
                  way.name.find("rounded:") != std::string::npos)
            << way.name;
      }
      return any_named(found, "rounded:");
    };
    EXPECT_FALSE(round(true));
    EXPECT_EQ(round(false), type != DType::f32 && direction == Direction::backward_weights) << "channels " << s.c_in;
  }
}

// 256GF's third stage: rows of 4103 halves begin on 2 bytes.
TEST_P(DescribedDevice, OffersPaddedProductsForOddWidths) {
  const ConvShape s{.n = 64, .h = 14, .w = 14, .c_in = 4103, .c_out = 4103};
  const bool padded = type != DType::f32 && direction == Direction::backward_weights;
  for (const std::size_t workspace_bytes : {std::size_t{1} << 30, std::size_t{250} << 20}) {
    DeviceOptions options;
    options.workspace_bytes = workspace_bytes;
    const auto found = usable(s, options);
    EXPECT_TRUE(any_named(found, "product"));
    const auto way = std::find_if(found.begin(), found.end(),
                                  [](const Way& w) { return w.name.find("padded_product") != std::string::npos; });
    ASSERT_EQ(way != found.end(), padded);
    if (!padded) continue;
    EXPECT_EQ(way->name.starts_with("pieces"), workspace_bytes < std::size_t{1} << 30) << way->name;
    EXPECT_EQ(way->product->k, way->shape.n * 14 * 14);
    EXPECT_EQ(way->product->m, 4104);
    EXPECT_EQ(way->product->n, 4104);
  }
  DeviceOptions options;
  EXPECT_FALSE(any_named(usable(kShapes[1], options), "padded"));
}

// The ways that the device tests below run in pieces are offered.
TEST_P(DescribedDevice, TightWorkspacesMakePieces) {
  if (type == DType::f32) return;
  for (const auto& [shape, workspace_bytes] : kTight) {
    DeviceOptions options;
    options.workspace_bytes = workspace_bytes;
    const auto found = usable(shape, options);
    EXPECT_TRUE(any_named(found, "pieces")) << "channels " << shape.c_in;
    if (direction == Direction::backward_weights && shape.is_matrix_product()) {
      EXPECT_TRUE(any_named(found, ":padded_product"));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(H100, DescribedDevice,
                         testing::Combine(testing::Values(DType::f32, DType::bf16, DType::f16),
                                          testing::Values(Direction::forward, Direction::backward_data,
                                                          Direction::backward_weights)));
#endif

/// Runs each way in turn: the back end takes the way that rank 0 names.
class EachWay : public testing::TestWithParam<std::tuple<DType, Direction>> {
 protected:
  void SetUp() override {
    SEER_NEEDS_DEVICE();
    ASSERT_EQ(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
    if (!MirroredBackend({}).supports(type)) GTEST_SKIP() << "this device does not support the type";
  }
  void TearDown() override {
    if (handle != nullptr) cudnnDestroy(handle);
  }
  const DType type = std::get<0>(GetParam());
  const Direction direction = std::get<1>(GetParam());
  cudnnHandle_t handle = nullptr;
  device::Queue queue;

  /// -1, 0 and 1: all sums here are exact in half precision, in any order and any number of pieces.
  static naive::Floats whole_numbers(std::int64_t count, std::uint64_t seed) {
    auto values = naive::random(count, seed);
    for (float& v : values) v = std::round(v);
    return values;
  }

  /// The way's result; gradients of weights are added twice. Nothing if the engine turns out not to support the shape.
  std::optional<naive::Floats> result(const ConvShape& s, DeviceOptions options, const std::string& way) {
    options.measured = false;
    options.agree = [way](const std::string&) { return way; };
    MirroredBackend backend(options);
    const device::Shape src_shape{s.n, s.h, s.w, s.c_in}, dst_shape{s.n, s.out_h(), s.out_w(), s.c_out};
    Stored src(type, whole_numbers(src_shape.elems(), 1)), dst(type, whole_numbers(dst_shape.elems(), 2));
    auto weight = whole_numbers(s.weight_elems(), 3);
    try {
      if (direction == Direction::forward) {
        std::fill(dst.data.begin(), dst.data.end(), std::uint16_t{0xffff});
        backend.conv_forward(queue, s, src.tensor(src_shape), {weight.data(), 1}, dst.tensor(dst_shape));
        return dst.values();
      }
      if (direction == Direction::backward_data) {
        std::fill(src.data.begin(), src.data.end(), std::uint16_t{0xffff});
        backend.conv_backward_data(queue, s, dst.tensor(dst_shape), {weight.data(), 1}, src.tensor(src_shape));
        return src.values();
      }
      std::fill(weight.begin(), weight.end(), NAN);
      for (const auto accumulate : {Accumulate::no, Accumulate::yes}) {
        backend.conv_backward_weights(queue, s, src.tensor(src_shape), dst.tensor(dst_shape), weight.data(),
                                      accumulate);
      }
      return weight;
    } catch (const Error& error) {
      if (error.message().find("cannot be made ready here") == std::string::npos) throw;
      return std::nullopt;
    }
  }

  naive::Floats expected(const ConvShape& s) const {
    const auto src = whole_numbers(s.n * s.h * s.w * s.c_in, 1), weight = whole_numbers(s.weight_elems(), 3);
    const auto dst = whole_numbers(s.n * s.out_h() * s.out_w() * s.c_out, 2);
    const auto exact = direction == Direction::forward         ? naive::forward(s, src, weight)
                       : direction == Direction::backward_data ? naive::backward_data(s, dst, weight)
                                                               : naive::backward_weights(s, src, dst);
    const double times = direction == Direction::backward_weights ? 2 : 1;
    naive::Floats out;
    for (const double v : exact) out.push_back(static_cast<float>(times * v));
    return out;
  }
};

TEST_P(EachWay, GivesTheBitsOfTheDefinition) {
  bool pieces = false;
  for (const auto& [shape, tight_bytes] : kTight) {
    const auto wanted = expected(shape);
    for (const std::size_t workspace_bytes : {std::size_t{64} << 20, tight_bytes}) {
      DeviceOptions options;
      options.workspace_bytes = workspace_bytes;
      std::set<std::string> done;  // for each kind of way, its first engine that works
      for (const auto& way : ways({.handle = handle}, options, direction, shape, type, 16).all) {
        const auto kind = way.name.substr(0, way.name.find("eng"));
        const bool transforms =  // which are not exact
            way.engine.has(CUDNN_NUMERICAL_NOTE_WINOGRAD) || way.engine.has(CUDNN_NUMERICAL_NOTE_FFT);
        if (transforms || done.contains(kind)) continue;
        const auto found = result(shape, options, way.name);
        if (!found) continue;
        EXPECT_EQ(*found, wanted) << way.name << " channels " << shape.c_in << " " << workspace_bytes << " bytes";
        done.insert(kind);
        pieces |= kind.starts_with("pieces");
      }
      EXPECT_FALSE(done.empty());
    }
  }
  EXPECT_TRUE(pieces);
}

INSTANTIATE_TEST_SUITE_P(Half, EachWay,
                         testing::Combine(testing::Values(DType::bf16, DType::f16),
                                          testing::Values(Direction::forward, Direction::backward_data,
                                                          Direction::backward_weights)));

}  // namespace
}  // namespace seer::dnn
#endif
