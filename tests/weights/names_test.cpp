// SPDX-License-Identifier: Apache-2.0
// The mapping of method.md 1.4, both ways.
#include "seer/weights/exchange.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

#include "seer/nn/model.hpp"

namespace seer {
namespace {

using weights::foreign_name;
using weights::Naming;
using weights::our_name;

struct Pair {
  std::string ours, vissl;
};

const std::vector<Pair> kTable = {
    {"stem.0.weight", "_feature_blocks.conv1.stem.0.weight"},
    {"stem.1.running_mean", "_feature_blocks.conv1.stem.1.running_mean"},
    {"trunk_output.block1.block1-0.proj.0.weight", "_feature_blocks.res2.block1-0.proj.weight"},
    {"trunk_output.block1.block1-0.proj.1.bias", "_feature_blocks.res2.block1-0.bn.bias"},
    {"trunk_output.block2.block2-3.f.a.0.weight", "_feature_blocks.res3.block2-3.f.a.0.weight"},
    {"trunk_output.block2.block2-3.f.a.1.weight", "_feature_blocks.res3.block2-3.f.a.1.weight"},
    {"trunk_output.block3.block3-12.f.b.0.weight", "_feature_blocks.res4.block3-12.f.b.0.weight"},
    {"trunk_output.block3.block3-12.f.b.1.running_var", "_feature_blocks.res4.block3-12.f.b.1.running_var"},
    {"trunk_output.block4.block4-0.f.se.fc1.weight", "_feature_blocks.res5.block4-0.f.se.excitation.0.weight"},
    {"trunk_output.block4.block4-0.f.se.fc2.bias", "_feature_blocks.res5.block4-0.f.se.excitation.2.bias"},
    {"trunk_output.block4.block4-0.f.c.0.weight", "_feature_blocks.res5.block4-0.f.c.weight"},
    {"trunk_output.block4.block4-0.f.c.1.weight", "_feature_blocks.res5.block4-0.f.final_bn.weight"},
    {"trunk_output.block4.block4-0.f.c.1.num_batches_tracked",
     "_feature_blocks.res5.block4-0.f.final_bn.num_batches_tracked"},
};

TEST(Names, TableBothWays) {
  for (const auto& [ours, vissl] : kTable) {
    EXPECT_EQ(our_name(vissl, Naming::vissl, 2), ours);
    EXPECT_EQ(our_name(vissl, Naming::automatic, 2), ours);
    EXPECT_EQ(our_name(ours, Naming::automatic, 2), ours);
    EXPECT_EQ(our_name(ours, Naming::torchvision, 2), ours);
    EXPECT_EQ(foreign_name(ours, Naming::vissl, 2, false), vissl);
    EXPECT_EQ(foreign_name(ours, Naming::vissl, 2, true), "trunk." + vissl);
    EXPECT_EQ(foreign_name(ours, Naming::torchvision, 2, true), ours);
  }
}

TEST(Names, WrappersAreTakenOff) {
  const std::string ours = "trunk_output.block1.block1-1.f.c.1.bias";
  for (const std::string name :
       {"trunk._feature_blocks.res2.block1-1.f.final_bn.bias",
        "trunk.base_model._feature_blocks.res2.block1-1.f.final_bn.bias",
        "module.trunk._feature_blocks.res2.block1-1.f.final_bn.bias",
        "_feature_blocks.res2.block1-part0.block1-1.f.final_bn.bias",
        "trunk._feature_blocks.res2.block1-part0._fsdp_wrapped_module._fpw_module.block1-1._fsdp_wrapped_module.f."
        "final_bn.bias",
        "trunk_output.block1.block1-1.f.final_bn.bias", "module.trunk_output.block1.block1-1.f.c.1.bias"}) {
    EXPECT_EQ(our_name(name, Naming::automatic, 2), ours) << name;
  }
  EXPECT_EQ(our_name("stem.stem.1.weight", Naming::automatic, 2), "stem.1.weight") << "ClassyVision's";
  EXPECT_EQ(our_name("fc.weight", Naming::automatic, 2), "fc.weight");
}

TEST(Names, PrefixesOfOtherToolsInAnyOrder) {
  const std::string ours = "trunk_output.block1.block1-1.f.c.1.bias";
  std::vector<std::string> words = {"module",  "_orig_mod", "backbone", "encoder",        "model",
                                    "student", "teacher",   "trunk",    "_feature_blocks"};
  std::sort(words.begin(), words.end());
  for (const auto& outer : words) {
    for (const auto& inner : words) {
      const auto prefix = outer + "." + inner + ".";
      EXPECT_EQ(our_name(prefix + ours, Naming::automatic, 2), ours) << prefix;
      EXPECT_EQ(our_name(prefix + "s1.b2.conv3.bn.bias", Naming::automatic, 2), ours) << prefix;
      EXPECT_EQ(our_name(prefix + "fc.weight", Naming::torchvision, 2), "fc.weight") << prefix;
      EXPECT_EQ(weights::wrapper_prefix(prefix + ours), prefix);
    }
  }
  EXPECT_EQ(our_name("trunk_output.block1.block1-1._orig_mod.f.c.1.bias", Naming::automatic, 2), ours);
  EXPECT_EQ(weights::wrapper_prefix(ours), "");
  EXPECT_EQ(weights::wrapper_prefix("model"), "");
}

TEST(Names, OfTimmPyclsAndTransformers) {
  const std::string block = "trunk_output.block2.block2-0.";
  const std::vector<std::array<std::string, 4>> table = {
      {"stem.0.weight", "stem.conv.weight", "stem.conv.weight", "regnet.embedder.embedder.convolution.weight"},
      {"stem.1.running_var", "stem.bn.running_var", "stem.bn.running_var",
       "regnet.embedder.embedder.normalization.running_var"},
      {block + "proj.0.weight", "s2.b1.downsample.conv.weight", "s2.b1.proj.weight",
       "regnet.encoder.stages.1.layers.0.shortcut.convolution.weight"},
      {block + "proj.1.bias", "s2.b1.downsample.bn.bias", "s2.b1.bn.bias",
       "regnet.encoder.stages.1.layers.0.shortcut.normalization.bias"},
      {block + "f.a.0.weight", "s2.b1.conv1.conv.weight", "s2.b1.f.a.weight",
       "regnet.encoder.stages.1.layers.0.layer.0.convolution.weight"},
      {block + "f.b.1.weight", "s2.b1.conv2.bn.weight", "s2.b1.f.b_bn.weight",
       "regnet.encoder.stages.1.layers.0.layer.1.normalization.weight"},
      {block + "f.se.fc1.bias", "s2.b1.se.fc1.bias", "s2.b1.f.se.f_ex.0.bias",
       "regnet.encoder.stages.1.layers.0.layer.2.attention.0.bias"},
      {block + "f.se.fc2.weight", "s2.b1.se.fc2.weight", "s2.b1.f.se.f_ex.2.weight",
       "regnet.encoder.stages.1.layers.0.layer.2.attention.2.weight"},
      {block + "f.c.1.num_batches_tracked", "s2.b1.conv3.bn.num_batches_tracked", "s2.b1.f.c_bn.num_batches_tracked",
       "regnet.encoder.stages.1.layers.0.layer.3.normalization.num_batches_tracked"},
      {"fc.weight", "head.fc.weight", "head.fc.weight", "classifier.1.weight"},
  };
  for (const auto& row : table) {
    for (const auto& theirs : row) EXPECT_EQ(our_name(theirs, Naming::automatic, 2), row[0]) << theirs;
  }
  for (const std::string name : {"s2.b1.conv9.weight", "sx.b1.conv1.conv.weight", "stages.1.layers.0.layer.7.x",
                                 "s99999999999.b1.conv1.conv.weight", "s2.b.conv1.conv.weight"}) {
    EXPECT_EQ(our_name(name, Naming::automatic, 2), name);
  }
}

TEST(Names, HeadWithAndWithoutBatchNorm) {
  EXPECT_EQ(weights::projection_head_stride({"heads.0.projection_head.0.weight", "heads.0.projection_head.2.weight"}),
            2);
  EXPECT_EQ(weights::projection_head_stride({"heads.0.projection_head.0.weight", "heads.0.projection_head.1.bias"}), 3);
  const std::vector<std::pair<std::string, std::string>> plain = {{"head.0.weight", "heads.0.projection_head.0.weight"},
                                                                  {"head.2.bias", "heads.0.projection_head.4.bias"},
                                                                  {"prototypes.weight", "heads.0.prototypes0.weight"}};
  for (const auto& [ours, theirs] : plain) {
    EXPECT_EQ(our_name(theirs, Naming::automatic, 2), ours);
    EXPECT_EQ(foreign_name(ours, Naming::vissl, 2, true), theirs);
  }
  const std::vector<std::pair<std::string, std::string>> normed = {
      {"head.1.weight", "heads.0.projection_head.3.weight"},
      {"head.1.norm.running_var", "heads.0.projection_head.4.running_var"},
      {"head.2.bias", "heads.0.projection_head.6.bias"}};
  for (const auto& [ours, theirs] : normed) {
    EXPECT_EQ(our_name(theirs, Naming::automatic, 3), ours);
    EXPECT_EQ(foreign_name(ours, Naming::vissl, 3, true), theirs);
  }
  EXPECT_EQ(our_name("0.projection_head.2.weight", Naming::automatic, 2), "head.1.weight");
}

TEST(Names, EveryTensorOfAModelComesBack) {
  for (const bool batchnorm : {false, true}) {
    config::Model model;
    model.preset = "400mf";
    config::Head head;
    head.dims = {440, 64, 48, 16};
    head.batchnorm = batchnorm;
    const nn::Model net(model, nn::projection_heads(head));
    const int stride = batchnorm ? 3 : 2;
    std::set<std::string> seen;
    for (const auto* table : {&net.parameters(), &net.buffers()}) {
      for (const auto& entry : table->entries()) {
        const auto theirs = foreign_name(entry.name, Naming::vissl, stride, true);
        EXPECT_TRUE(seen.insert(theirs).second) << theirs;
        EXPECT_TRUE(theirs.starts_with("trunk._feature_blocks.") || theirs.starts_with("heads.0.")) << theirs;
        EXPECT_EQ(our_name(theirs, Naming::vissl, stride), entry.name);
      }
    }
  }
}

}  // namespace
}  // namespace seer
