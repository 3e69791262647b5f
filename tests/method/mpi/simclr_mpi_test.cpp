// SPDX-License-Identifier: Apache-2.0
// Compares SimCLR's loss with float64 (validation/reference/simclr.py) on any number of ranks.
#include <gtest/gtest.h>

#include "nn/support.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/method/method.hpp"

namespace seer::method {
namespace {

using test::GoldenFile;

const comm::Communicator& world() {
  static const auto comm = comm::Communicator::world();
  return comm;
}

/// The loss of the rows of this rank's images.
class Alone {
 public:
  Alone(const GoldenFile& file, const std::string& name)
      : crops_(static_cast<std::int64_t>(file.attribute(name, "crops"))),
        images_(static_cast<std::int64_t>(file.attribute(name, "images"))),
        mine_(images_ / world().size()),
        z_(file.read(name + "/z")),
        dim_(static_cast<std::int64_t>(z_.dims.at(1))) {
    config_.method.kind = "simclr";
    config_.simclr.temperature = file.attribute(name, "temperature");
    config_.data.global_batch = images_;
  }

  /// The rows of this rank among all rows, crop by crop.
  std::vector<float> mine(const std::vector<double>& all) const {
    std::vector<float> out;
    for (std::int64_t crop = 0; crop < crops_; ++crop) {
      const auto* first = all.data() + (crop * images_ + world().rank() * mine_) * dim_;
      for (std::int64_t i = 0; i < mine_ * dim_; ++i) out.push_back(static_cast<float>(first[i]));
    }
    return out;
  }

  /// Sum over ranks of the loss; this rank's gradient and figures.
  double loss(double scale) {
    comm::BlockCommunicator block(world(), queue_);
    const nn::Heads none;
    const auto method = kind(config_).make({config_, block, none, queue_, mine_, crops_});
    auto z = mine(z_.values);
    gradient_.assign(z.size(), 0.0F);
    const auto backend = dnn::make_host_backend();
    device::Pool pool;
    const nn::Context ctx{.dnn = backend.get(), .pool = &pool, .queue = queue_};
    const device::Shape shape{crops_ * mine_, 1, 1, dim_};
    const device::Tensor outputs[] = {{.data = z.data(), .shape = shape}};
    const auto& share = method->loss({ctx, {}, 0, scale, outputs, {}, {.data = gradient_.data(), .shape = shape}});
    EXPECT_EQ(pool.in_use_bytes(), 0U);
    figures_ = method->figures(std::vector<double>{world().all_reduce(share.sums.at(0), comm::Op::sum)});
    return world().all_reduce(share.loss, comm::Op::sum);
  }

  config::Config config_;
  device::Queue queue_;
  std::int64_t crops_, images_, mine_;
  test::Golden z_;
  std::int64_t dim_;
  std::vector<float> gradient_;
  std::vector<Figure> figures_;
};

TEST(Simclr, LossAndGradientAreTheReferences) {
  const GoldenFile file("simclr.h5");
  for (const std::string name : {"v2", "v2_sharp", "v4", "same"}) {
    SCOPED_TRACE(name);
    const auto group = "loss/" + name;
    Alone alone(file, group);
    if (alone.images_ % world().size() != 0) continue;
    const double wanted = file.read(group + "/loss").values.at(0);
    const auto d_z = file.read(group + "/d_z").values;
    double largest = 0;
    for (const double d : d_z) largest = std::max(largest, std::abs(d));
    for (const double scale : {1.0, 1024.0}) {
      EXPECT_NEAR(alone.loss(scale), wanted, 2e-6 * wanted);
      const auto mine = alone.mine(d_z);
      for (std::size_t i = 0; i < mine.size(); ++i) {
        EXPECT_NEAR(alone.gradient_[i], scale * static_cast<double>(mine[i]), scale * (2e-5 * largest + 1e-7));
      }
    }
    ASSERT_EQ(alone.figures_.size(), 1U);
    EXPECT_EQ(alone.figures_[0].name, "contrast_accuracy");
    if (name == "same") {
      EXPECT_EQ(alone.figures_[0].value, 1) << "the nearest row is always a positive";
    }
  }
}

TEST(Simclr, WarnsOfEqualEmbeddings) {
  const GoldenFile file("simclr.h5");
  Alone alone(file, "loss/same");
  if (alone.images_ % world().size() != 0) GTEST_SKIP() << "the images must be a multiple of the ranks";
  const double loss = alone.loss(1);
  comm::BlockCommunicator block(world(), alone.queue_);
  const auto method = kind(alone.config_).make({alone.config_, block, {}, alone.queue_, alone.mine_, alone.crops_});
  std::string text;
  for (std::int64_t u = 1; u < 300; ++u) text += method->watch(u, loss).value_or("");
  EXPECT_NE(text.find("collapse"), std::string::npos);
  EXPECT_NE(text.find("simclr.temperature"), std::string::npos) << text;
}

}  // namespace
}  // namespace seer::method
