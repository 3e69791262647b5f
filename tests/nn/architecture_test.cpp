// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "seer/base/error.hpp"
#include "seer/nn/architecture.hpp"
#include "seer/nn/model.hpp"

namespace seer::nn {
namespace {

config::Model preset(const std::string& name, const std::string& rule = "pycls") {
  config::Model m;
  m.preset = name;
  m.width_rule = rule;
  return m;
}

std::vector<std::int64_t> widths(const std::vector<Stage>& stages) {
  std::vector<std::int64_t> out;
  for (const auto& s : stages) out.push_back(s.width);
  return out;
}

TEST(Architecture, PresetsMatchTheGoldenTable) {
  std::ifstream file(std::string(SEER_TEST_DATA) + "/presets.json");
  const auto table = nlohmann::json::parse(file);
  ASSERT_EQ(table.size(), preset_names().size());
  for (const auto& [name, golden] : table.items()) {
    const auto a = architecture(preset(name));
    std::vector<std::int64_t> depths, groups;
    for (const auto& s : a) {
      depths.push_back(s.depth);
      groups.push_back(s.group_width);
    }
    EXPECT_EQ(widths(a), golden["widths"].get<std::vector<std::int64_t>>()) << name;
    EXPECT_EQ(depths, golden["depths"].get<std::vector<std::int64_t>>()) << name;
    EXPECT_EQ(groups, golden["group_widths"].get<std::vector<std::int64_t>>()) << name;
    EXPECT_EQ(a.back().width, golden["features"].get<std::int64_t>()) << name;
    const Model model(preset(name));
    EXPECT_EQ(model.parameters().parameter_count(), golden["trunk_parameters"].get<std::int64_t>()) << name;
  }
}

// torchvision 0.14's stage widths where its rule differs (method.md 1.1).
TEST(Architecture, TorchvisionRuleDiffersWhereTheSpecSays) {
  using W = std::vector<std::int64_t>;
  EXPECT_EQ(widths(architecture(preset("800mf", "torchvision"))), (W{64, 144, 320, 784}));
  EXPECT_EQ(widths(architecture(preset("8gf", "torchvision"))), (W{224, 448, 896, 2016}));
  EXPECT_EQ(widths(architecture(preset("4.0gf", "torchvision"))), (W{128, 256, 512, 1088}));
  EXPECT_EQ(widths(architecture(preset("400mf", "torchvision"))), (W{48, 104, 208, 440}));
  EXPECT_EQ(widths(architecture(preset("16gf", "torchvision"))), (W{224, 448, 1232, 3024}));
}

TEST(Architecture, SqueezeWidthRoundsHalfToEven) {
  EXPECT_EQ(squeeze_width(746), 186);
  EXPECT_EQ(squeeze_width(11110), 2778);
  EXPECT_EQ(squeeze_width(32), 8);
}

TEST(Architecture, SeersWholeModelHasItsPublishedSize) {
  const Model model(preset("256gf"), projection_heads({}));
  EXPECT_EQ(model.parameters().parameter_count(), 1431032042);
}

TEST(Architecture, RefusesWhatIsNoRegNet) {
  EXPECT_THROW(architecture(preset("17gf")), Error);
  config::Model m;
  m.preset = "";
  m.depth = 5;
  m.w0 = 20;  // not a multiple of 8
  m.wa = 10;
  m.wm = 2;
  m.group_width = 8;
  EXPECT_THROW(architecture(m), Error);
  m.w0 = 24;
  EXPECT_NO_THROW(architecture(m));
  config::Head head;
  head.dims = {100, 64};
  try {
    Model model(preset("tiny"), projection_heads(head));
    FAIL() << "a head of another width was accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::input);
    EXPECT_NE(std::string(e.what()).find("100"), std::string::npos);
    EXPECT_NE(std::string(e.what()).find("64 features"), std::string::npos);
  }
}

TEST(Parameters, InitialisationDependsOnNameAndSeedAlone) {
  const Model small(preset("tiny")), large(preset("200mf"));
  std::vector<float> a(static_cast<std::size_t>(small.parameters().block_elems()));
  std::vector<float> b(static_cast<std::size_t>(large.parameters().block_elems())), c = a;
  initialize(small.parameters(), 7, a.data());
  initialize(large.parameters(), 7, b.data());
  initialize(small.parameters(), 8, c.data());
  for (int i = 0; i < 27 * 32; ++i) EXPECT_EQ(a[i], b[i]);  // the stem
  EXPECT_NE(a[0], c[0]);
}

TEST(Parameters, InitialisationHasTheRightSpread) {
  const Model model(preset("400mf"));
  std::vector<float> block(static_cast<std::size_t>(model.parameters().block_elems()));
  initialize(model.parameters(), 0, block.data());
  const auto& b = model.parameters().find("trunk_output.block4.block4-1.f.b.0.weight");  // grouped: 440 outputs
  double square = 0;
  for (std::int64_t i = 0; i < b.elems; ++i) square += std::pow(static_cast<double>(block[b.offset + i]), 2);
  EXPECT_NEAR(std::sqrt(square / static_cast<double>(b.elems)), std::sqrt(2.0 / (9 * 440)), 0.001);
  const auto& bias = model.parameters().find("trunk_output.block4.block4-1.f.se.fc1.bias");  // fan_in 440
  for (std::int64_t i = 0; i < bias.elems; ++i) EXPECT_LE(std::abs(block[bias.offset + i]), 1 / std::sqrt(440.0));
}

}  // namespace
}  // namespace seer::nn
