// SPDX-License-Identifier: Apache-2.0
// The mapping of spec 1.4, both ways.
#include "seer/checkpoint/names.hpp"

#include <gtest/gtest.h>

#include <set>

#include "seer/nn/model.hpp"

namespace seer {
namespace {

using checkpoint::foreign_name;
using checkpoint::Naming;
using checkpoint::our_name;

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

TEST(Names, HeadWithAndWithoutBatchNorm) {
  EXPECT_EQ(
      checkpoint::projection_head_stride({"heads.0.projection_head.0.weight", "heads.0.projection_head.2.weight"}), 2);
  EXPECT_EQ(checkpoint::projection_head_stride({"heads.0.projection_head.0.weight", "heads.0.projection_head.1.bias"}),
            3);
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
    const nn::Model net(model, head);
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
