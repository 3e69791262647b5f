// SPDX-License-Identifier: Apache-2.0
#include "../../src/comm/versions.hpp"

#include <gtest/gtest.h>

namespace seer::comm {
namespace {

TEST(NcclVersions, VersionsAsPeopleWriteThem) {
  EXPECT_EQ(nccl_version_text(22809), "2.28.9");
  EXPECT_EQ(nccl_version_text(21805), "2.18.5");
  EXPECT_EQ(nccl_version_text(2804), "2.8.4");
}

TEST(NcclVersions, RefusesWhatIsTooOldOrOlderThanItsHeaders) {
  EXPECT_EQ(nccl_refusal(21706, 21706), "NCCL 2.17.6 is too old; 2.18.0 or newer is needed");
  EXPECT_EQ(nccl_refusal(21805, 22809), "NCCL 2.18.5 was found at run time, and this seer was built with 2.28.9");
  EXPECT_FALSE(nccl_refusal(22807, 22809)) << "patch releases add no functions";
  EXPECT_FALSE(nccl_refusal(22809, 21805));
  EXPECT_FALSE(nccl_refusal(21800, 21800));
}

}  // namespace
}  // namespace seer::comm
