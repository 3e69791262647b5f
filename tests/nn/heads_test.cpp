// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "support.hpp"

namespace seer::nn {
namespace {

// Compares a head with and without BatchNorm, in odd sizes, with central differences in every parameter tensor and the
// input.
TEST(Heads, GradientMatchesFiniteDifferences) {
  for (const bool batchnorm : {false, true}) {
    for (const std::int64_t rows : {1, 5}) {
      if (batchnorm && rows == 1) continue;  // a batch of one has no variance
      ParameterTable table, buffer_table;
      config::Head config;
      config.dims = {7, 9, 6, 5};
      config.batchnorm = batchnorm;
      config.prototypes = 11;
      const auto heads = projection_heads(config)(7, table, buffer_table);
      const Chain &projector = *heads.at(0), &prototypes = *heads.at(1);
      std::vector<float> parameters(static_cast<std::size_t>(table.block_elems())), gradients(parameters.size());
      std::vector<float> buffers(static_cast<std::size_t>(buffer_table.block_elems()) + 1);
      initialize(table, 3, parameters.data());
      initialize(buffer_table, 3, buffers.data());
      const auto backend = dnn::make_host_backend();
      device::Pool pool;
      const Context ctx{.dnn = backend.get(),
                        .pool = &pool,
                        .queue = {},
                        .parameters = parameters.data(),
                        .gradients = gradients.data(),
                        .buffers = buffers.data()};
      auto features = test::hash_fill(static_cast<std::size_t>(rows * 7), 4, 1.0);
      const auto up = test::hash_fill(static_cast<std::size_t>(rows * 11), 2, 1.0);
      std::vector<float> scores(up.size()), embeddings(static_cast<std::size_t>(rows * 5)), d_features(features.size()),
          d_embeddings(embeddings.size());
      const device::Tensor x{.data = features.data(), .shape = {rows, 1, 1, 7}};
      const device::Tensor e{.data = embeddings.data(), .shape = {rows, 1, 1, 5}};
      const device::Tensor d_e{.data = d_embeddings.data(), .shape = e.shape};
      const device::Tensor s{.data = scores.data(), .shape = {rows, 1, 1, 11}};
      const auto value = [&] {
        projector.forward_all(ctx, x, *projector.make_pass(), e);
        prototypes.forward_all(ctx, e, *prototypes.make_pass(), s);
        double sum = 0;
        for (std::size_t i = 0; i < up.size(); ++i) sum += static_cast<double>(scores[i]) * static_cast<double>(up[i]);
        return sum;
      };
      const auto pass = projector.make_pass(), last_pass = prototypes.make_pass();
      projector.forward_all(ctx, x, *pass, e);
      prototypes.forward_all(ctx, e, *last_pass, s);
      double norm_of_row = 0;
      for (int i = 0; i < 5; ++i)
        norm_of_row += std::pow(static_cast<double>(embeddings[static_cast<std::size_t>(i)]), 2);
      EXPECT_NEAR(norm_of_row, 1.0, 1e-5);
      auto d_scores = up;
      prototypes.backward_all(ctx, {.data = d_scores.data(), .shape = s.shape}, *last_pass, d_e);
      projector.backward_all(ctx, d_e, *pass, {.data = d_features.data(), .shape = x.shape});

      const auto check = [&](float& place, float gradient, const std::string& what) {
        const float start = place;
        const float h = 5e-4F;  // small: a ReLU that switches inside the step would be a false alarm
        place = start + h;
        const double above = value();
        place = start - h;
        const double below = value();
        place = start;
        EXPECT_NEAR((above - below) / (2 * static_cast<double>(h)), static_cast<double>(gradient), 1e-2) << what;
      };
      for (const auto& p : table.entries()) {
        for (std::int64_t i = 0; i < p.elems; i += 3) {
          check(parameters[static_cast<std::size_t>(p.offset + i)], gradients[static_cast<std::size_t>(p.offset + i)],
                p.name);
        }
      }
      for (std::size_t i = 0; i < features.size(); ++i) check(features[i], d_features[i], "features");
    }
  }
}

}  // namespace
}  // namespace seer::nn
