// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/metrics.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "seer/base/error.hpp"

namespace seer::eval {
namespace {

/// The score of an image that has the class: a point of this class's curve.
struct Threshold {
  std::int32_t class_index;
  float score;
  auto operator<=>(const Threshold&) const = default;
};

/// The distinct thresholds of all ranks, by class and then by score.
std::vector<Threshold> thresholds_of(const comm::Communicator& comm, std::span<const float> scores,
                                     std::span<const std::int8_t> truth, std::size_t classes) {
  std::vector<Threshold> mine;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (truth[i] == 1) mine.push_back({static_cast<std::int32_t>(i % classes), scores[i]});
  std::ranges::sort(mine);
  mine.erase(std::unique(mine.begin(), mine.end()), mine.end());
  std::vector<Threshold> all;
  for (const auto& part :
       comm.all_gather(std::string(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(Threshold)))) {
    all.resize(all.size() + part.size() / sizeof(Threshold));
    std::memcpy(all.data() + all.size() - part.size() / sizeof(Threshold), part.data(), part.size());
  }
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

/// One point of a class's curve: images whose score is at least the threshold.
struct Point {
  std::int64_t right, wrong;
  double precision() const { return static_cast<double>(right) / static_cast<double>(right + wrong); }
};

struct Precision {
  double all_points = 0, eleven_points = 0;
};

/// Points by falling threshold. The last one has all `positives`.
Precision precision_of(std::span<const Point> points) {
  const std::int64_t positives = points.back().right;
  Precision out;
  double envelope = 0;
  std::int64_t level = 10;  // tenths of the recall that are still to be counted
  for (std::size_t i = points.size(); i-- > 0;) {
    const std::int64_t before = i == 0 ? 0 : points[i - 1].right;
    envelope = std::max(envelope, points[i].precision());
    out.all_points += envelope * static_cast<double>(points[i].right - before) / static_cast<double>(positives);
    for (; level >= 0 && (10 * before < level * positives || i == 0); --level) out.eleven_points += envelope;
  }
  out.eleven_points /= 11;
  return out;
}

}  // namespace

AccuracyCounter::AccuracyCounter(std::int64_t classes)
    : classes_(static_cast<std::size_t>(classes)), counts_(2 * classes_ + 1, 0) {}

void AccuracyCounter::add(std::span<const float> scores, std::span<const std::int32_t> labels) {
  ensure(scores.size() == labels.size() * classes_, "one score for each image and class");
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0) continue;
    const auto label = static_cast<std::size_t>(labels[i]);
    ensure(label < classes_, "a label is below the number of classes");
    const float* row = scores.data() + i * classes_;
    int ahead = 0;
    for (std::size_t c = 0; c < classes_ && ahead < 5; ++c)
      if (c != label && (!(row[c] <= row[label]) || (row[c] == row[label] && c < label))) ++ahead;
    if (std::isnan(row[label])) ahead = 5;
    ++counts_[label];
    if (ahead == 0) ++counts_[classes_ + label];
    if (ahead < 5) ++counts_[2 * classes_];
  }
}

Accuracy AccuracyCounter::result(const comm::Communicator& comm) const {
  auto counts = counts_;
  comm.all_reduce(std::span(counts));
  const auto middle = counts.begin() + static_cast<std::ptrdiff_t>(classes_);
  Accuracy out;
  out.images_of.assign(counts.begin(), middle);
  out.right_of.assign(middle, counts.end() - 1);
  std::int64_t right = 0, seen = 0;
  for (std::size_t c = 0; c < classes_; ++c) {
    out.images += out.images_of[c];
    right += out.right_of[c];
    if (out.images_of[c] == 0) continue;
    ++seen;
    out.mean_per_class += static_cast<double>(out.right_of[c]) / static_cast<double>(out.images_of[c]);
  }
  if (out.images == 0) return out;
  out.top1 = static_cast<double>(right) / static_cast<double>(out.images);
  out.top5 = static_cast<double>(counts.back()) / static_cast<double>(out.images);
  out.mean_per_class /= static_cast<double>(seen);
  return out;
}

MeanPrecision mean_average_precision(const comm::Communicator& comm, std::span<const float> scores,
                                     std::span<const std::int8_t> truth, std::int64_t classes) {
  const auto width = static_cast<std::size_t>(classes);
  comm::agree(comm, "average precision", [&] {
    ensure(scores.size() == truth.size() && scores.size() % width == 0, "one score and one truth per image and class");
    const auto bad = std::ranges::find_if(scores, [](float x) { return !std::isfinite(x); });
    if (bad != scores.end())
      throw Error(ExitCode::numerics,
                  fmt::format("average precision: the score of class {} is not finite (found {})",
                              static_cast<std::size_t>(bad - scores.begin()) % width, *bad),
                  "the classifier has diverged: train it with a lower rate");
  });
  const auto thresholds = thresholds_of(comm, scores, truth, width);
  const std::size_t points = thresholds.size();
  // Images whose highest threshold not above their score is this one: with the class, and without it.
  std::vector<std::int64_t> counts(2 * points, 0);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (truth[i] < 0) continue;
    const Threshold here{static_cast<std::int32_t>(i % width), scores[i]};
    const auto above = std::ranges::upper_bound(thresholds, here) - thresholds.begin();
    if (above == 0) continue;
    const auto at = static_cast<std::size_t>(above - 1);
    if (thresholds[at].class_index == here.class_index) ++counts[truth[i] == 1 ? at : points + at];
  }
  comm.all_reduce(std::span(counts));
  MeanPrecision out;
  out.per_class.assign(width, std::numeric_limits<double>::quiet_NaN());
  std::vector<Point> curve;
  for (std::size_t end = points; end > 0;) {
    const auto of = thresholds[end - 1].class_index;
    Point sum{0, 0};
    for (curve.clear(); end > 0 && thresholds[end - 1].class_index == of; --end) {
      sum.right += counts[end - 1];
      sum.wrong += counts[points + end - 1];
      curve.push_back(sum);
    }
    const auto precision = precision_of(curve);
    out.per_class[static_cast<std::size_t>(of)] = precision.all_points;
    out.all_points += precision.all_points;
    out.eleven_points += precision.eleven_points;
    ++out.classes;
  }
  if (out.classes == 0) return out;
  out.all_points /= static_cast<double>(out.classes);
  out.eleven_points /= static_cast<double>(out.classes);
  return out;
}

Spread spread_of(std::span<const double> values, bool population) {
  Spread out;
  const auto n = static_cast<double>(values.size());
  for (const double value : values) out.mean += value / n;
  double squares = 0;
  for (const double value : values) squares += (value - out.mean) * (value - out.mean);
  if (values.size() > 1) out.deviation = std::sqrt(squares / (population ? n : n - 1));
  return out;
}

}  // namespace seer::eval
