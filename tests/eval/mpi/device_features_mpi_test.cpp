// SPDX-License-Identifier: Apache-2.0
// Features on a device equal those on the host, with stored and with recalibrated statistics.
#include "../support.hpp"
#include "on_device.hpp"
#include "seer/eval/features.hpp"

namespace seer::eval {
namespace {

class FeaturesOnDevice : public test::OnDevice {};

TEST_F(FeaturesOnDevice, AreTheHosts) {
  constexpr std::int64_t kImages = 23;
  const auto world = comm::Communicator::world();
  const test::ShardFolder folder(world, kImages, 3);
  const auto data = data::DataSet::open(folder.path(), world);
  data::EvalOptions reading;
  reading.resize = 36;
  reading.crop = 32;
  reading.batch = 4;
  config::Model model;
  model.preset = "tiny";
  config::Head head;
  head.dims = {64, 32, 16};
  head.batchnorm = true;
  head.prototypes = 4;
  for (const auto* text : {"trunk", "head", "res3:gem3,stem:3x2,res4:rmac2+trunk,res2:map"}) {
    const auto layer = parse_features(text);
    FeatureExtractor on_host(model, head, 3, layer, "host"), on_device(model, head, 3, layer, "device");
    for (const bool anew : {false, true}) {
      if (anew) {
        on_host.recalibrate(world, data, 20, reading);
        on_device.recalibrate(world, data, 20, reading);
        const std::size_t statistics = 40;
        expect_near({on_device.buffers(), on_device.buffers() + statistics},
                    {on_host.buffers(), on_host.buffers() + statistics}, 1e-4, "running statistics");
      }
      const auto found = on_device.table(world, data, reading), wanted = on_host.table(world, data, reading);
      EXPECT_EQ(found.index, wanted.index);
      ASSERT_GT(found.values.size(), 0U);
      expect_near(found.values, wanted.values, 1e-4, anew ? "features after recalibration" : "features");
    }
  }
}

}  // namespace
}  // namespace seer::eval
