// SPDX-License-Identifier: Apache-2.0
// One pass over images, and one over their crops, for the figures of all features.
#include <algorithm>

#include "seer/base/error.hpp"
#include "seer/eval/quality.hpp"

namespace seer::eval {
namespace {

std::vector<float> part_of(const std::vector<float>& rows, std::int64_t dimension, const FeatureColumns& columns) {
  std::vector<float> out;
  out.reserve(rows.size() / static_cast<std::size_t>(dimension) * static_cast<std::size_t>(columns.width));
  for (auto row = rows.begin(); row != rows.end(); row += dimension)
    out.insert(out.end(), row + columns.begin, row + columns.begin + columns.width);
  return out;
}

}  // namespace

data::DataSet evenly(const data::DataSet& all, std::uint64_t count) {
  if (count >= all.images()) return all;
  std::vector<std::uint64_t> indices(count);
  const auto parts = static_cast<int>(count);
  for (std::uint64_t i = 0; i < count; ++i) indices[i] = slice_begin(all.images(), static_cast<int>(i), parts);
  return all.subset(std::move(indices));
}

std::vector<Quality> measure_quality(const comm::Communicator& comm, FeatureExtractor& extractor,
                                     const data::DataSet& images, const data::DataSet& view_images,
                                     const data::EvalOptions& reading, const data::Views& views,
                                     const std::vector<QualityOptions>& options, PrototypeMeter* prototypes) {
  const auto info = extractor.info(images, reading);
  const auto columns = columns_of(info);
  ensure(columns.size() == options.size(), "options for each feature");
  std::vector<QualityMeter> meters;
  for (std::size_t f = 0; f < columns.size(); ++f) meters.emplace_back(columns[f].width, images.images(), options[f]);
  extractor.run(comm, images, reading, [&](const FeatureTable& batch) {
    for (std::size_t f = 0; f < columns.size(); ++f) {
      const auto rows = part_of(batch.values, info.dimension, columns[f]);
      meters[f].add(rows, batch.bad, batch.first);
      if (prototypes != nullptr && columns[f].feature == "head") prototypes->add(rows, batch.bad);
    }
  });
  if (views.count > 0) {
    auto cropped = reading;
    cropped.views = views;
    extractor.run(comm, view_images, cropped, [&](const FeatureTable& batch) {
      for (std::size_t f = 0; f < columns.size(); ++f)
        meters[f].add_views(part_of(batch.values, info.dimension, columns[f]), batch.bad, views.count);
    });
  }
  std::vector<Quality> out;
  for (auto& meter : meters) out.push_back(meter.result(comm));
  return out;
}

}  // namespace seer::eval
