// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/ridge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "seer/base/error.hpp"
#include "seer/dnn/backend.hpp"
#include "seer/eval/eigen.hpp"
#include "seer/eval/moments.hpp"

namespace seer::eval {
namespace {

/// A feature that deviates less than this share of the mean deviation counts as constant.
constexpr double kConstant = 1e-6;

bool counts(const FeatureTable& table, std::size_t row) {
  return table.labels[row] >= 0 && table.bad[row] == 0;
}

/// Class scores are weights x + bias.
struct Classifier {
  std::vector<double> weights;  ///< [classes, d]
  std::vector<double> bias;     ///< [classes]
};

/// `class_sums`: [classes, d], of the rows of each class.
Classifier solve(const Moments& moments, const std::vector<double>& class_sums, const std::vector<double>& class_rows,
                 double strength) {
  const auto d = static_cast<std::size_t>(moments.dimension());
  const auto n = static_cast<double>(moments.rows());
  auto gram = moments.centred();
  std::vector<double> deviation(d);
  double mean_deviation = 0;
  for (std::size_t j = 0; j < d; ++j) {
    deviation[j] = std::sqrt(std::max(0.0, gram[j * d + j] / n));
    mean_deviation += deviation[j] / static_cast<double>(d);
  }
  for (auto& s : deviation) s = s > kConstant * mean_deviation ? s : 0;
  const auto scale = [&](std::size_t j) { return deviation[j] > 0 ? 1 / deviation[j] : 0; };
  for (std::size_t i = 0; i < d; ++i) {
    for (std::size_t j = i; j < d; ++j) gram[i * d + j] *= scale(i) * scale(j);
    gram[i * d + i] += strength * n;
  }
  Classifier out{class_sums, std::vector<double>(class_rows.size())};
  for (std::size_t c = 0; c < class_rows.size(); ++c)
    for (std::size_t j = 0; j < d; ++j)
      out.weights[c * d + j] = (out.weights[c * d + j] - class_rows[c] * moments.sum()[j] / n) * scale(j);
  solve_positive(gram, moments.dimension(), out.weights);
  for (std::size_t c = 0; c < class_rows.size(); ++c) {
    out.bias[c] = class_rows[c] / n;
    for (std::size_t j = 0; j < d; ++j) {
      out.weights[c * d + j] *= scale(j);
      out.bias[c] -= out.weights[c * d + j] * moments.sum()[j] / n;
    }
  }
  return out;
}

}  // namespace

double ridge_top1(const comm::Communicator& comm, const FeatureTable& train, const FeatureTable& test,
                  std::int64_t classes, double strength) {
  const auto d = static_cast<std::size_t>(train.info.dimension), c = static_cast<std::size_t>(classes);
  Moments moments(train.info.dimension);
  std::vector<double> class_sums(c * d, 0.0), class_rows(c, 0.0);
  for (std::size_t i = 0; i < train.rows(); ++i) {
    if (!counts(train, i)) continue;
    const auto row = std::span(train.values).subspan(i * d, d);
    const auto label = static_cast<std::size_t>(train.labels[i]);
    for (std::size_t j = 0; j < d; ++j) class_sums[label * d + j] += static_cast<double>(row[j]);
    class_rows[label] += 1;
  }
  // Rows that do not count are left out in stretches, as rows are added faster together.
  for (std::size_t begin = 0, i = 0; i <= train.rows(); ++i) {
    if (i < train.rows() && counts(train, i)) continue;
    moments.add(std::span(train.values).subspan(begin * d, (i - begin) * d));
    begin = i + 1;
  }
  moments.all_reduce(comm);
  comm.all_reduce(std::span(class_sums));
  comm.all_reduce(std::span(class_rows));
  std::array<std::int64_t, 2> tested = {0, 0};  // rows; right ones
  for (std::size_t i = 0; i < test.rows(); ++i) tested[0] += counts(test, i) ? 1 : 0;
  if (moments.rows() == 0 || comm.all_reduce(tested[0], comm::Op::sum) == 0)
    throw Error(ExitCode::input,
                fmt::format("linear probe: {} has no labelled image",
                            moments.rows() == 0 ? train.info.name() : test.info.name()),
                "pack it with --labels")
        .as_agreed();

  Classifier classifier{std::vector<double>(c * d), std::vector<double>(c)};
  comm::agree(comm, "linear probe", [&] {
    if (comm.is_root()) classifier = solve(moments, class_sums, class_rows, strength);
  });
  comm.broadcast(classifier.weights.data(), classifier.weights.size() * sizeof(double));
  comm.broadcast(classifier.bias.data(), classifier.bias.size() * sizeof(double));

  const std::vector<float> weights(classifier.weights.begin(), classifier.weights.end());
  const std::vector<float> bias(classifier.bias.begin(), classifier.bias.end());
  std::vector<float> scores(test.rows() * c);
  const auto dnn = dnn::make_host_backend();
  device::Queue queue;
  if (test.rows() > 0)
    dnn->gemm(queue, static_cast<std::int64_t>(test.rows()), classes, train.info.dimension, test.values.data(),
              dnn::Transpose::no, weights.data(), dnn::Transpose::yes, scores.data(), dnn::Accumulate::no, bias.data());
  for (std::size_t i = 0; i < test.rows(); ++i) {
    const auto of_row = std::span(scores).subspan(i * c, c);
    const auto best = std::ranges::max_element(of_row) - of_row.begin();
    if (counts(test, i) && best == test.labels[i]) ++tested[1];
  }
  comm.all_reduce(std::span(tested));
  return static_cast<double>(tested[1]) / static_cast<double>(tested[0]);
}

}  // namespace seer::eval
