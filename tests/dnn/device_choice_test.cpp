// SPDX-License-Identifier: Apache-2.0
// What of the device's back end needs no device: choosing and keeping engines, row-major products in column-major
// words, padded widths, and what cuDNN offers for a device that is described and not here.
#if defined(SEER_CUDA)
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "../../src/dnn/cuda/choices.hpp"
#include "../../src/dnn/cuda/cudnn_conv.hpp"
#include "naive.hpp"
#include "seer/base/error.hpp"

namespace seer::dnn {
namespace {

class ChoicesFile : public testing::Test {
 protected:
  ~ChoicesFile() override { std::filesystem::remove_all(folder); }
  std::string folder = testing::TempDir() + "seer_choices_" + std::to_string(getpid());
};

/// A way that takes so long and counts how often it is asked.
Candidate timed(const char* name, std::optional<double> us, int& asked) {
  return {name, [us, &asked](double) {
            ++asked;
            return us;
          }};
}

TEST_F(ChoicesFile, TheFastestIsTakenKeptAndNotMeasuredAgain) {
  int asked = 0;
  const std::vector<Candidate> candidates{timed("slow", 30, asked), timed("cannot", std::nullopt, asked),
                                          timed("fast", 10.5, asked), timed("middle", 20, asked)};
  {
    Choices choices(folder, true);
    EXPECT_EQ(choose("key", candidates, choices, {}, "a shape"), 2U);
    EXPECT_EQ(asked, 4);
  }
  Choices again(folder, true);
  EXPECT_EQ(again.find("key"), (Choice{"fast", 10.5}));
  EXPECT_EQ(choose("key", candidates, again, {}, "a shape"), 2U);
  EXPECT_EQ(asked, 4);
  EXPECT_EQ(choose("another key", candidates, again, {}, "a shape"), 2U);
  EXPECT_EQ(asked, 8);
}

TEST_F(ChoicesFile, WhatOthersWroteStays) {
  Choices first(folder, true), second(folder, true);
  first.keep("a", {"x", 1});
  second.keep("b", {"y", 2});
  const Choices third(folder, false);
  EXPECT_EQ(third.find("a"), (Choice{"x", 1}));
  EXPECT_EQ(third.find("b"), (Choice{"y", 2}));
}

TEST_F(ChoicesFile, OneThatDoesNotWriteLeavesNoFile) {
  Choices(folder, false).keep("a", {"x", 1});
  Choices("", true).keep("a", {"x", 1});
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(ChoicesFile, WhatCannotBeReadIsIgnored) {
  std::filesystem::create_directories(folder);
  for (const char* text : {"{", "[]", R"({"format": 2})", R"({"format": 1, "choices": {"a": 3}})"}) {
    std::ofstream(folder + "/dnn_choices.json") << text;
    EXPECT_FALSE(Choices(folder, true).find("a")) << text;
  }
}

TEST(Choose, AKeptNameThatIsNotOfferedIsMeasuredAnew) {
  int asked = 0;
  Choices choices("", true);
  choices.keep("key", {"gone", 1});
  EXPECT_EQ(choose("key", {timed("there", 5, asked)}, choices, {}, "a shape"), 0U);
  EXPECT_EQ(asked, 1);
}

TEST(Choose, TheRootsChoiceIsEverybodys) {
  int asked = 0;
  std::vector<std::string> told;
  const Agree root_says_b = [&](const std::string& mine) {
    told.push_back(mine);
    return std::string("b");
  };
  Choices choices("", true);
  const std::vector<Candidate> candidates{timed("a", 1, asked), timed("b", 2, asked)};
  EXPECT_EQ(choose("key", candidates, choices, root_says_b, "a shape"), 1U);
  EXPECT_EQ(told, std::vector<std::string>{"a"});
  EXPECT_FALSE(choices.find("key")) << "this rank's time of another engine is none of the root's";
}

TEST(Choose, NoEngineOrAnUnknownOneIsAnErrorAfterTheAgreement) {
  int asked = 0, agreed = 0;
  const Agree echo = [&](const std::string& mine) {
    ++agreed;
    return mine;
  };
  Choices choices("", true);
  EXPECT_THROW(choose("key", {timed("a", std::nullopt, asked)}, choices, echo, "a shape"), Error);
  EXPECT_EQ(agreed, 1);
  try {
    choose(
        "key", {timed("a", 1, asked)}, choices, [](const std::string&) { return std::string("z"); }, "a shape");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::device);
    EXPECT_NE(error.message().find("engine z for a shape"), std::string::npos) << error.message();
  }
}

TEST(ChoiceKey, NamesAllThatTheChoiceDependsOn) {
  const ConvShape s{.n = 2, .h = 5, .w = 6, .c_in = 48, .c_out = 24, .kernel = 3, .stride = 2, .pad = 1, .groups = 3};
  const ChoiceSetting setting{
      .device = "NVIDIA H100", .library = "cuDNN 9.19.0", .driver = 13000, .workspace_bytes = 64};
  const auto key = choice_key(setting, Direction::backward_data, s, DType::bf16, 16);
  EXPECT_EQ(
      key,
      "NVIDIA H100 | cuDNN 9.19.0 | driver 13000 | workspace 64 | backward_data bf16 n 2 h 5 w 6 c 48 24 kernel 3 "
      "stride 2 pad 1 groups 3 alignment 16");
  auto other = setting;
  other.deterministic = true;
  EXPECT_NE(choice_key(other, Direction::backward_data, s, DType::bf16, 16), key);
  EXPECT_NE(choice_key(setting, Direction::forward, s, DType::bf16, 16), key);
  EXPECT_NE(choice_key(setting, Direction::backward_data, s, DType::f16, 16), key);
  EXPECT_NE(choice_key(setting, Direction::backward_data, s, DType::bf16, 8), key);
}

// A column-major product by the definition, as cuBLASLt would do it.
TEST(ColumnMajor, GivesTheRowMajorProduct) {
  const std::int64_t m = 3, n = 4, k = 5;
  const auto a = naive::random(m * k, 1), b = naive::random(k * n, 2);
  for (const auto ta : {Transpose::no, Transpose::yes}) {
    for (const auto tb : {Transpose::no, Transpose::yes}) {
      const auto c = column_major({.m = m, .n = n, .k = k, .ta = ta, .tb = tb});
      naive::Floats found(naive::at(m * n));
      const auto element = [](const naive::Floats& x, std::int64_t leading, bool transposed, std::int64_t row,
                              std::int64_t column) {
        return static_cast<double>(x[naive::at(transposed ? column + row * leading : row + column * leading)]);
      };
      ASSERT_EQ(c.transpose_a ? c.rows_a : c.columns_a, k);
      ASSERT_EQ(c.transpose_b ? c.columns_b : c.rows_b, k);
      ASSERT_EQ(c.transpose_a ? c.columns_a : c.rows_a, c.rows_c);
      ASSERT_EQ(c.transpose_b ? c.rows_b : c.columns_b, c.columns_c);
      for (std::int64_t row = 0; row < c.rows_c; ++row) {
        for (std::int64_t column = 0; column < c.columns_c; ++column) {
          double sum = 0;
          for (std::int64_t l = 0; l < k; ++l) {
            sum += element(b, c.leading_a, c.transpose_a, row, l) * element(a, c.leading_b, c.transpose_b, l, column);
          }
          found[naive::at(row + column * c.leading_c)] = static_cast<float>(sum);
        }
      }
      EXPECT_LT(naive::relative_error(found, naive::gemm(m, n, k, a, ta, b, tb, {}, {})), 1e-6);
    }
  }
}

TEST(Alignment, IsTheLargestPowerOfTwoUpTo16) {
  for (const auto& [address, wanted] :
       {std::pair<std::uintptr_t, std::int64_t>{0x1000, 16}, {0x1010, 16}, {0x1008, 8}, {0x100c, 4}, {0x1002, 2}}) {
    EXPECT_EQ(alignment_bytes(reinterpret_cast<const void*>(address)), wanted);
  }
}

TEST(PaddedWidths, RoundEachGroupUpToEight) {
  const PaddedWidths p(ConvShape{.c_in = 2020, .c_out = 15, .groups = 5});
  EXPECT_TRUE(p.needed());
  EXPECT_EQ(p.shape({.c_in = 2020, .c_out = 15, .groups = 5}).c_in, 5 * 408);
  EXPECT_EQ(p.shape({.c_in = 2020, .c_out = 15, .groups = 5}).c_out, 5 * 8);
  EXPECT_FALSE(PaddedWidths(ConvShape{.c_in = 528, .c_out = 1056, .groups = 2}).needed());
}

#if CUDNN_VERSION >= 90800
/// An H100 as cuDNN describes it: all but running works without one.
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

  /// Names of the ways whose engines can be made ready.
  std::vector<std::string> usable(const ConvShape& shape, const DeviceOptions& options) {
    std::vector<std::string> names;
    for (const auto& way : ways(target, options, direction, shape, type, 16)) {
      if (way.product) {
        names.push_back(way.name);
        continue;
      }
      try {
        const cudnn::Plan plan(target, way.engine);
        if (way.workspace_bytes + plan.workspace_bytes() <= options.workspace_bytes) names.push_back(way.name);
      } catch (const cudnn::Failure&) {
      }
    }
    return names;
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
      const auto names = usable(s, options);
      std::string all;
      for (const auto& name : names) all += name + "; ";
      EXPECT_FALSE(names.empty()) << "channels " << s.c_in << " kernel " << s.kernel << " groups " << s.groups;
      if (!deterministic) RecordProperty("c" + std::to_string(s.c_in) + "_g" + std::to_string(s.groups), all);
    }
  }
}

TEST_P(DescribedDevice, OffersPaddedWaysForOddWidthsOfHalfPrecision) {
  DeviceOptions options;
  options.float_weight_gradients = false;
  const auto names = usable(kShapes[4], options);
  const bool padded =
      std::any_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with("padded"); });
  EXPECT_EQ(padded, type != DType::f32);
}

// Engines that copy are compiled when the program runs. Where there is no driver to take them, that is all that may be
// missing; which is said, with a remedy for what one can mend.
TEST_P(DescribedDevice, CastsWeightsOfAnyAlignment) {
  if (type == DType::f32 || direction != Direction::forward) return;
  for (const auto& s : {kShapes[0], kShapes[1]}) {  // each takes a compiler's time where there is a driver
    for (const std::int64_t alignment : {4, 16}) {
      const auto from = cudnn::weights(1, DType::f32, s, cudnn::Order::krsc, alignment);
      const auto to = cudnn::weights(2, type, s, cudnn::Order::krsc);
      try {
        EXPECT_TRUE(cudnn::first_plan(cudnn::Graph::copy(target, from, to), 0));
      } catch (const cudnn::Failure& failure) {
        EXPECT_TRUE(failure.status == CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING ||
                    failure.status == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER)
            << failure.what();
        EXPECT_EQ(failure.remedy().empty(), failure.status == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(H100, DescribedDevice,
                         testing::Combine(testing::Values(DType::f32, DType::bf16, DType::f16),
                                          testing::Values(Direction::forward, Direction::backward_data,
                                                          Direction::backward_weights)));
#endif

}  // namespace
}  // namespace seer::dnn
#endif
