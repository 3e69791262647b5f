// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/whitening.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/eval/eigen.hpp"

namespace seer::eval {

void make_unit(FeatureTable& table) {
  const auto features = columns_of(table.info);
  for (std::size_t i = 0; i < table.rows(); ++i) {
    float* row = table.values.data() + i * static_cast<std::size_t>(table.info.dimension);
    for (const auto& columns : features) {
      const std::span values(row + columns.begin, static_cast<std::size_t>(columns.width));
      double square = 0;
      for (const float x : values) square += static_cast<double>(x) * static_cast<double>(x);
      if (!std::isfinite(square))
        throw Error(ExitCode::numerics,
                    fmt::format("{} on {}: features of image {} are not finite", table.info.source, table.info.name(),
                                table.index[i]),
                    "these weights have diverged; take an earlier checkpoint");
      const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
      for (float& x : values) x = static_cast<float>(scale * static_cast<double>(x));
    }
  }
}

Whitening learn_whitening(const comm::Communicator& comm, const FeatureTable& table, std::int64_t outputs) {
  const auto d = static_cast<std::size_t>(table.info.dimension);
  const auto images = comm.all_reduce(static_cast<std::int64_t>(std::ranges::count(table.bad, 0)), comm::Op::sum);
  Whitening out;
  out.inputs = table.info.dimension;
  out.outputs = outputs > 0 ? outputs : out.inputs;
  comm::agree(comm, "whitening", [&] {
    if (out.outputs > out.inputs)
      throw Error(ExitCode::input,
                  fmt::format("whitening to {} dimensions: {} has {}", out.outputs, table.info.layer, out.inputs),
                  "give a smaller --whiten-dims");
    if (images < 2)
      throw Error(ExitCode::input, fmt::format("whitening: {} images, wanted at least two", images),
                  "give more images with --whiten");
  });
  if (images <= out.outputs)
    log::warn(
        fmt::format("whitening: {} images do not span {} dimensions; the last ones hold noise", images, out.outputs));
  std::vector<double> mean(d, 0.0), covariance(d * d, 0.0);
  for (std::size_t r = 0; r < table.rows(); ++r) {
    if (table.bad[r] != 0) continue;
    const float* row = table.values.data() + r * d;
    for (std::size_t i = 0; i < d; ++i) {
      const auto x = static_cast<double>(row[i]);
      mean[i] += x;
      double* to = covariance.data() + i * d;
      for (std::size_t j = i; j < d && x != 0; ++j) to[j] += x * static_cast<double>(row[j]);
    }
  }
  comm.all_reduce(std::span(mean));
  comm.all_reduce(std::span(covariance));
  const auto n = static_cast<double>(images);
  for (auto& x : mean) x /= n;
  for (std::size_t i = 0; i < d; ++i)
    for (std::size_t j = i; j < d; ++j)
      covariance[i * d + j] = covariance[j * d + i] = covariance[i * d + j] / n - mean[i] * mean[j];
  out.mean.assign(mean.begin(), mean.end());
  out.projection.resize(static_cast<std::size_t>(out.outputs) * d);
  comm::agree(comm, "whitening", [&] {
    if (!comm.is_root()) return;
    const auto eigen = symmetric_eigen(covariance, out.inputs, true);
    constexpr double kFloor = 1e-5, kRounding = 1e-12;  // rows have length one
    const double largest = eigen.values.back();
    if (!(largest > kRounding))
      throw Error(ExitCode::numerics, fmt::format("whitening: {} of all {} images are equal", table.info.layer, images),
                  "these weights have collapsed, or all images are the same");
    for (std::size_t i = 0; i < static_cast<std::size_t>(out.outputs); ++i) {
      const double scale = 1 / std::sqrt(std::max(eigen.values[d - 1 - i], kFloor * largest));
      for (std::size_t j = 0; j < d; ++j)
        out.projection[i * d + j] = static_cast<float>(scale * eigen.vectors[(d - 1 - i) * d + j]);
    }
  });
  comm.broadcast(out.projection.data(), out.projection.size() * sizeof(float));
  return out;
}

void whiten(const Whitening& whitening, FeatureTable& table) {
  constexpr std::size_t kRows = 1024;
  const auto d = static_cast<std::size_t>(whitening.inputs), to = static_cast<std::size_t>(whitening.outputs);
  ensure(table.info.dimension == whitening.inputs, "the whitening is of the same feature");
  const auto dnn = dnn::make_host_backend();
  device::Queue queue;
  std::vector<float> out(table.rows() * to), centred;
  for (std::size_t begin = 0; begin < table.rows(); begin += kRows) {
    const auto rows = std::min(kRows, table.rows() - begin);
    centred.assign(table.values.begin() + static_cast<std::ptrdiff_t>(begin * d),
                   table.values.begin() + static_cast<std::ptrdiff_t>((begin + rows) * d));
    for (std::size_t i = 0; i < centred.size(); ++i) centred[i] -= whitening.mean[i % d];
    dnn->gemm(queue, static_cast<std::int64_t>(rows), whitening.outputs, whitening.inputs, centred.data(),
              dnn::Transpose::no, whitening.projection.data(), dnn::Transpose::yes, out.data() + begin * to);
  }
  table.values = std::move(out);
  table.info.dimension = whitening.outputs;
  table.info.columns.clear();
  make_unit(table);
}

}  // namespace seer::eval
