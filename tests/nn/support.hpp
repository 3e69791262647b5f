// SPDX-License-Identifier: Apache-2.0
// A model with its blocks and a context, and the reference's initialisation.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "golden.hpp"
#include "seer/nn/model.hpp"

namespace seer::test {

/// hash_init of the reference: parameter i in registration order, prototypes normalised by row.
inline void hash_init(const nn::ParameterTable& table, std::uint64_t seed, float* block) {
  std::uint64_t i = 0;
  for (const auto& p : table.entries()) {
    double scale = 0.1, shift = 0;
    if (p.shape.size() > 1) {
      scale = std::sqrt(3.0 / (static_cast<double>(p.elems) / static_cast<double>(p.shape[0])));
    } else if (p.name.ends_with("weight")) {
      scale = 0.2;
      shift = 1;
    }
    for (std::int64_t e = 0; e < p.elems; ++e) {
      block[p.offset + e] = static_cast<float>(shift + hash_value(seed + i, static_cast<std::uint64_t>(e), scale));
    }
    if (p.name == "prototypes.weight") {
      const auto dim = p.shape[1];
      for (std::int64_t row = 0; row < p.shape[0]; ++row) {
        double square = 0;
        for (std::int64_t e = 0; e < dim; ++e) square += std::pow(block[p.offset + row * dim + e], 2);
        for (std::int64_t e = 0; e < dim; ++e) block[p.offset + row * dim + e] /= static_cast<float>(std::sqrt(square));
      }
    }
    ++i;
  }
}

struct TestModel {
  explicit TestModel(const std::string& preset, std::vector<std::int64_t> dims = {}, std::int64_t prototypes = 4)
      : model(
            [&] {
              config::Model m;
              m.preset = preset;
              return m;
            }(),
            nn::projection_heads([&] {
              config::Head h;
              h.dims = dims;
              h.prototypes = prototypes;
              return h;
            }())),
        backend(dnn::make_host_backend()),
        parameters(static_cast<std::size_t>(model.parameters().block_elems())),
        gradients(parameters.size()),
        buffers(static_cast<std::size_t>(model.buffers().block_elems())) {
    model.initialize(1, parameters.data(), buffers.data());
  }
  nn::Context context(nn::Mode mode = nn::Mode::train) {
    return {.dnn = backend.get(),
            .pool = &pool,
            .queue = {},
            .parameters = parameters.data(),
            .gradients = gradients.data(),
            .buffers = buffers.data(),
            .version = 0,
            .mode = mode};
  }

  nn::Model model;
  std::unique_ptr<dnn::Backend> backend;
  device::Pool pool;
  std::vector<float> parameters, gradients, buffers;
};

inline std::vector<float> to_nhwc(const std::vector<double>& x, std::int64_t n, std::int64_t c, std::int64_t h,
                                  std::int64_t w) {
  std::vector<float> out(x.size());
  for (std::int64_t in = 0; in < n; ++in)
    for (std::int64_t ic = 0; ic < c; ++ic)
      for (std::int64_t y = 0; y < h * w; ++y)
        out[static_cast<std::size_t>((in * h * w + y) * c + ic)] =
            static_cast<float>(x[static_cast<std::size_t>((in * c + ic) * h * w + y)]);
  return out;
}

}  // namespace seer::test
