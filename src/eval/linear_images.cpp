// SPDX-License-Identifier: Apache-2.0
// Where linear classifiers get their rows from: tables of features, or images with augmentation.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "gathered.hpp"
#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/data/source.hpp"
#include "seer/eval/linear.hpp"

namespace seer::eval {
namespace {

/// Error(numerics), agreed, if some feature has the same row for all images of all ranks, or a value that is not
/// finite.
void require_features(const comm::Communicator& comm, std::span<const float> values, const FeatureInfo& info,
                      std::span<const FeatureColumns> columns, const std::string& set) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto d = static_cast<std::size_t>(info.dimension);
  std::vector<double> low(d, kInfinity), high(d, -kInfinity);
  comm::agree(comm, "features", [&] {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto value = static_cast<double>(values[i]);
      if (!std::isfinite(value))
        throw Error(ExitCode::numerics, fmt::format("{} on {}: some features are not finite", info.source, set),
                    "these weights have diverged; take an earlier checkpoint");
      low[i % d] = std::min(low[i % d], value);
      high[i % d] = std::max(high[i % d], value);
    }
  });
  comm.all_reduce(std::span(low), comm::Op::min);
  comm.all_reduce(std::span(high), comm::Op::max);
  for (const auto& of : columns) {
    if (!std::equal(low.begin() + of.begin, low.begin() + of.begin + of.width, high.begin() + of.begin)) continue;
    throw Error(ExitCode::numerics,
                fmt::format("{} on {}: feature {} is the same for all images", info.source, set, of.feature),
                "this network has collapsed; nothing can be learnt from it")
        .as_agreed();
  }
}

/// The targets of all ranks' rows.
template <class Of>
data::Targets gathered_targets(const comm::Communicator& comm, std::size_t rows, const Of& of) {
  std::vector<std::uint32_t> counts;
  std::vector<std::int32_t> values;
  for (std::size_t i = 0; i < rows; ++i) {
    const std::span<const std::int32_t> classes = of(i);
    counts.push_back(static_cast<std::uint32_t>(classes.size()));
    values.insert(values.end(), classes.begin(), classes.end());
  }
  data::Targets out;
  out.values = gathered(comm, values);
  for (const auto count : gathered(comm, counts)) out.begins.push_back(out.begins.back() + count);
  return out;
}

LabelledImages labelled(const comm::Communicator& comm, const FeatureTable& table) {
  LabelledImages out;
  out.name = table.info.name();
  out.classes = table.info.classes;
  out.targets = gathered_targets(comm, table.rows(), [&](std::size_t i) { return table.classes_of(i); });
  const bool ignores = comm.all_reduce(static_cast<std::int64_t>(table.ignored.images()), comm::Op::max) > 0;
  if (ignores) out.ignored = gathered_targets(comm, table.rows(), [&](std::size_t i) { return table.ignored.of(i); });
  out.bad = gathered(comm, table.bad);
  return out;
}

class TableSource final : public LinearSource {
 public:
  TableSource(const comm::Communicator& comm, FeatureTable train, FeatureTable test)
      : comm_(comm), table_(std::move(train)) {
    comm::agree(comm, "comparing the tables", [&] {
      require_alike(table_.info, table_.info.name(), test.info, test.info.name());
      if (table_.info.dimension != test.info.dimension || columns_of(table_.info) != columns_of(test.info))
        throw Error(ExitCode::input,
                    fmt::format("features of {} dimensions on {}, of {} on {}", table_.info.dimension,
                                table_.info.name(), test.info.dimension, test.info.name()),
                    "compute both with the same weights and features");
    });
    columns_ = columns_of(table_.info);
    info_ = table_.info;
    train_ = labelled(comm, table_);
    test_ = labelled(comm, test);
    require_features(comm, table_.values, info_, columns_, train_.name);
    require_features(comm, test.values, test.info, {}, test_.name);
    test_rows_.values = std::move(test.values);
    for (std::size_t i = 0; i < test.rows(); ++i) test_rows_.images.push_back(test.first + i);
  }

  void begin(std::span<const std::uint64_t> images, std::int64_t batch, std::int64_t update,
             std::uint64_t seed) override {
    images_.assign(images.begin(), images.end());
    batch_ = static_cast<std::uint64_t>(batch);
    position_ = static_cast<std::uint64_t>(update) * batch_;
    seed_ = seed;
  }

  void next(ImageRows& out) override {
    const auto d = static_cast<std::size_t>(info_.dimension);
    out.images.resize(batch_);
    out.values.assign(batch_ * d, 0.0F);
    for (std::size_t i = 0; i < batch_; ++i, ++position_) {
      const std::uint64_t epoch = position_ / images_.size(), place = position_ % images_.size();
      Random random(seed_, Purpose::epoch_order, epoch);
      const auto key = std::uint64_t{random.bits()} << 32 | random.bits();
      out.images[i] = images_[data::permute(place, images_.size(), key)];
      if (out.images[i] >= table_.first && out.images[i] < table_.first + table_.rows())
        std::copy_n(table_.values.begin() + static_cast<std::ptrdiff_t>((out.images[i] - table_.first) * d), d,
                    out.values.begin() + static_cast<std::ptrdiff_t>(i * d));
    }
    comm_.all_reduce(std::span(out.values));  // each row comes from one rank; the others have zeros: exact
  }

  ImageRows rows_of(std::span<const std::uint64_t> images) override {
    ImageRows out;
    for (const auto image : images) {
      if (image < table_.first || image >= table_.first + table_.rows()) continue;
      const auto row = table_.values.begin() + static_cast<std::ptrdiff_t>(image - table_.first) * info_.dimension;
      out.values.insert(out.values.end(), row, row + info_.dimension);
      out.images.push_back(image);
    }
    return out;
  }
  const ImageRows& test_rows() override { return test_rows_; }

 private:
  const comm::Communicator& comm_;
  FeatureTable table_;
  ImageRows test_rows_;
  std::vector<std::uint64_t> images_;
  std::uint64_t batch_ = 0, position_ = 0, seed_ = 0;
};

LabelledImages labelled(const comm::Communicator& comm, const data::DataSet& data) {
  LabelledImages out;
  out.name = describe(data);
  out.classes = data.classes();
  comm::agree(comm, "reading labels", [&] {
    out.targets = data.targets(0, data.images());
    out.ignored = data.ignored(0, data.images());
  });
  if (out.ignored.values.empty()) out.ignored = {};  // no class of any image is left open
  out.bad.assign(data.images(), 0);
  return out;
}

class ShardSource final : public LinearSource {
 public:
  ShardSource(const comm::Communicator& comm, FeatureExtractor extractor, data::DataSet train, data::DataSet test,
              const data::EvalOptions& options, double scale_low)
      : comm_(comm),
        extractor_(std::move(extractor)),
        train_set_(std::move(train)),
        test_set_(std::move(test)),
        options_(options),
        scale_low_(scale_low) {
    train_ = labelled(comm, train_set_);
    test_ = labelled(comm, test_set_);
    info_ = extractor_.info(train_set_, options);
    columns_ = columns_of(info_);
  }

  void begin(std::span<const std::uint64_t> images, std::int64_t batch, std::int64_t update,
             std::uint64_t seed) override {
    images_.assign(images.begin(), images.end());
    batch_ = batch;
    config::Config config;
    config.crops = {{1, options_.crop, {scale_low_, 1.0}}};
    config.augment = extractor_.normalisation();
    config.augment.flip_probability = 0.5;
    config.augment.jitter_probability = config.augment.grey_probability = config.augment.blur_probability = 0;
    config.data.global_batch = batch;
    config.data.seed = static_cast<std::int64_t>(seed);
    source_ = data::open_source(config, comm_, {.update = update, .images_seen = update * batch}, nullptr,
                                train_set_.subset(images_));
  }

  void next(ImageRows& out) override {
    const auto d = static_cast<std::size_t>(info_.dimension);
    out.values.assign(static_cast<std::size_t>(batch_) * d, 0.0F);
    std::vector<std::int64_t> images(static_cast<std::size_t>(batch_), 0);
    const auto& batch = source_->next();
    const auto first = static_cast<std::size_t>(comm_.rank() * batch.images);
    for (std::int64_t at = 0; at < batch.images; at += options_.batch) {
      const auto count = std::min(options_.batch, batch.images - at);
      data::EvalBatch part;
      part.images = count;
      part.pixels = batch.groups[0].images.slice(at, count);
      for (std::int64_t i = at; i < at + count; ++i) {
        const auto image = images_[batch.positions[static_cast<std::size_t>(i)]];
        part.indices.push_back(image);
        images[first + static_cast<std::size_t>(i)] = static_cast<std::int64_t>(image);
      }
      std::ranges::copy(extractor_.rows(part),
                        out.values.begin() + static_cast<std::ptrdiff_t>((first + static_cast<std::size_t>(at)) * d));
    }
    comm_.all_reduce(std::span(out.values));  // each row comes from one rank; the others have zeros: exact
    comm_.all_reduce(std::span(images));
    out.images.assign(images.begin(), images.end());
  }

  ImageRows rows_of(std::span<const std::uint64_t> images) override {
    const std::vector<std::uint64_t> all(images.begin(), images.end());
    auto rows = rows_of_set(train_set_.subset(all));
    for (auto& image : rows.images) image = all[image];
    return rows;
  }
  const ImageRows& test_rows() override {
    if (!tested_) {
      test_rows_ = rows_of_set(test_set_);
      require_features(comm_, test_rows_.values, info_, columns_, test_.name);
      tested_ = true;
    }
    return test_rows_;
  }

 private:
  ImageRows rows_of_set(const data::DataSet& data) {
    auto table = extractor_.table(comm_, data, options_);
    ImageRows out;
    const auto d = info_.dimension;
    for (std::size_t i = 0; i < table.rows(); ++i) {
      if (table.bad[i] != 0) continue;
      const auto row = table.values.begin() + static_cast<std::ptrdiff_t>(i) * d;
      out.values.insert(out.values.end(), row, row + d);
      out.images.push_back(table.first + i);
    }
    return out;
  }

  const comm::Communicator& comm_;
  FeatureExtractor extractor_;
  data::DataSet train_set_, test_set_;
  data::EvalOptions options_;
  double scale_low_;
  std::vector<std::uint64_t> images_;
  std::int64_t batch_ = 0;
  std::unique_ptr<data::BatchSource> source_;
  ImageRows test_rows_;
  bool tested_ = false;
};

}  // namespace

std::unique_ptr<LinearSource> table_source(const comm::Communicator& comm, FeatureTable train, FeatureTable test) {
  return std::make_unique<TableSource>(comm, std::move(train), std::move(test));
}

std::unique_ptr<LinearSource> shard_source(const comm::Communicator& comm, FeatureExtractor extractor,
                                           data::DataSet train, data::DataSet test, const data::EvalOptions& options,
                                           double scale_low) {
  return std::make_unique<ShardSource>(comm, std::move(extractor), std::move(train), std::move(test), options,
                                       scale_low);
}

}  // namespace seer::eval
