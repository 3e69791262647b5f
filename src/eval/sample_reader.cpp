// SPDX-License-Identifier: Apache-2.0
#include "sample_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "seer/base/error.hpp"
#include "seer/base/random.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

SampleReader::SampleReader(const comm::Communicator& comm, const data::DataSet& data, std::int64_t images,
                           const data::EvalOptions& options)
    : comm_(comm), data_(data), options_(options) {
  const auto available = static_cast<std::int64_t>(data.images());
  const std::int64_t wanted = std::min(images, available);
  comm::agree(comm, "BatchNorm statistics", [&] {
    if (wanted >= comm.size()) return;
    throw Error(ExitCode::input, fmt::format("BatchNorm statistics: {} images for {} ranks", wanted, comm.size()),
                "use at least one image a rank");
  });
  batch_ = std::min(wanted, std::max<std::int64_t>(options.batch, comm.size()));
  batches_ = wanted / batch_;
  options_.batch = 1;
  options_.batches_ahead = 1;
  options_.threads = 1;
  // Draw one image from each of `wanted` equal ranges of the data set, in random order.
  Random random(0, Purpose::recalibration);
  const double stretch = static_cast<double>(available) / static_cast<double>(wanted);
  for (std::int64_t i = 0; i < wanted; ++i) {
    const double at = (static_cast<double>(i) + random.uniform()) * stretch;
    order_.push_back(std::min(static_cast<std::uint64_t>(at), data.images() - 1));
  }
  for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);
}

const device::Tensor* SampleReader::next() {
  if (at_ == batches_) return nullptr;
  const auto batch = static_cast<std::uint64_t>(batch_);
  const auto begin = slice_begin(batch, comm_.rank(), comm_.size()),
             end = slice_begin(batch, comm_.rank() + 1, comm_.size());
  const std::uint64_t start = static_cast<std::uint64_t>(at_++) * batch;
  pixels_.clear();
  for (std::uint64_t i = begin; i < end; ++i) {
    const auto index = order_[start + i];
    data::EvalReader reader(data_, index, index + 1, options_);
    const auto* image = reader.next();
    ensure(image != nullptr && image->images == 1, "the evaluation reader gives one image of a range of one");
    pixels_.insert(pixels_.end(), image->pixels.f32(), image->pixels.f32() + image->pixels.elems());
    tensor_ = image->pixels;
  }
  tensor_.data = pixels_.data();
  tensor_.shape.n = static_cast<std::int64_t>(end - begin);
  return &tensor_;
}

}  // namespace seer::eval
