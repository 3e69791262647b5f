// SPDX-License-Identifier: Apache-2.0
// data.source = "crops": reads given crops in their order, without augmentation, to compare whole updates with a
// reference (docs/formats.md). The training thread reads them: a validation tool, not a fast path.
#include <fmt/format.h>

#include <filesystem>

#include "seer/base/error.hpp"
#include "seer/data/augment.hpp"
#include "seer/data/loader.hpp"
#include "seer/device/memory.hpp"
#include "seer/h5/file.hpp"

namespace seer::data {
namespace {

std::string shape_text(const h5::Dims& dims) {
  return fmt::format("[{}]", fmt::join(dims, ", "));
}

class CropsSource final : public BatchSource {
 public:
  CropsSource(const config::Config& config, int rank, int ranks, Start start)
      : path_(config.data.shards),
        file_(h5::File::open(path_)),
        kinds_(crop_kinds(config)),
        batch_rows_(config.data.global_batch),
        rank_(rank),
        start_(start),
        update_(start.update) {
    check();
    batch_.images = batch_rows_ / ranks;
    batch_.groups = crop_groups(config.crops, batch_.images);
    for (auto& group : batch_.groups) {
      memory_.emplace_back(static_cast<std::size_t>(group.images.bytes()));
      group.images.data = memory_.back().data();
    }
    batch_.positions.resize(static_cast<std::size_t>(batch_.images));
    batch_.targets.begins.resize(static_cast<std::size_t>(batch_.images) + 1);  // none
  }

  const Batch& next() override {
    const std::int64_t position = start_.position(update_, batch_rows_);
    if (position + batch_rows_ > static_cast<std::int64_t>(rows_))
      throw Error(ExitCode::input,
                  fmt::format("{} holds crops for {} updates, update {} was asked for", path_,
                              static_cast<std::int64_t>(rows_) / batch_rows_, update_),
                  "set schedule.total_updates to what the file holds");
    const std::int64_t first = position + rank_ * batch_.images;
    for (std::int64_t i = 0; i < batch_.images; ++i)
      batch_.positions[static_cast<std::size_t>(i)] = static_cast<std::uint64_t>(first + i);
    for (auto& group : batch_.groups) {
      const std::int64_t pixels = group.size * group.size;
      planar_.resize(static_cast<std::size_t>(batch_.images * 3 * pixels));
      for (int c = 0; c < group.count; ++c) {
        file_.read(fmt::format("/crops/{}", group.first_crop + c), h5::Type::f32,
                   static_cast<std::uint64_t>(first * 3 * pixels), planar_.size(), planar_.data());
        float* const out = group.images.slice(c * batch_.images, batch_.images).f32();
        for (std::int64_t i = 0; i < batch_.images; ++i)
          for (std::int64_t channel = 0; channel < 3; ++channel)
            for (std::int64_t p = 0; p < pixels; ++p)
              out[(i * pixels + p) * 3 + channel] = planar_[static_cast<std::size_t>((i * 3 + channel) * pixels + p)];
      }
    }
    batch_.update = update_++;
    return batch_;
  }

  std::uint64_t images() const override { return rows_; }
  std::vector<ShardIdentity> shards() const override {
    return {{std::filesystem::path(path_).filename().string(),
             static_cast<std::int64_t>(std::filesystem::file_size(path_)), static_cast<std::int64_t>(rows_)}};
  }
  std::int64_t bad_images() const override { return 0; }
  std::int64_t bytes_held() const override {
    std::size_t bytes = planar_.capacity() * sizeof(float);
    for (const auto& buffer : memory_) bytes += buffer.bytes();
    return static_cast<std::int64_t>(bytes);
  }

 private:
  void check() {
    for (std::size_t crop = 0; crop < kinds_.size(); ++crop) {
      const std::string name = fmt::format("/crops/{}", crop);
      if (!file_.exists(name))
        throw Error(ExitCode::file,
                    fmt::format("{} has no {}; the configuration asks for {} crops", path_, name, kinds_.size()),
                    "set [[crops]] to what the file holds");
      const auto found = file_.describe(name);
      const auto size = static_cast<std::uint64_t>(kinds_[crop].size);
      const auto& dims = found.dims;
      if (!found.type || (*found.type != h5::Type::f32 && *found.type != h5::Type::f64))
        throw Error(ExitCode::file, fmt::format("{}: {} is not of float type", path_, name));
      if (dims.size() != 4 || dims[1] != 3)
        throw Error(ExitCode::file, fmt::format("{}: {} has shape {}, wanted [updates * batch, 3, height, width]",
                                                path_, name, shape_text(dims)));
      if (dims[2] != size || dims[3] != size)
        throw Error(ExitCode::input,
                    fmt::format("{}: {} has crops of {} x {}, the configuration asks for {} x {}", path_, name, dims[2],
                                dims[3], size, size),
                    "set the sizes of [[crops]] to what the file holds");
      if (crop == 0) rows_ = dims[0];
      if (dims[0] != rows_)
        throw Error(ExitCode::file, fmt::format("{}: {} has {} rows, /crops/0 has {}", path_, name, dims[0], rows_));
    }
    const auto extra = fmt::format("/crops/{}", kinds_.size());
    if (file_.exists(extra))
      throw Error(ExitCode::input,
                  fmt::format("{} holds more crops than the {} of the configuration", path_, kinds_.size()),
                  "set [[crops]] to what the file holds");
    if (rows_ == 0 || rows_ % static_cast<std::uint64_t>(batch_rows_) != 0)
      throw Error(ExitCode::input,
                  fmt::format("{} holds {} rows, not a multiple of data.global_batch = {}", path_, rows_, batch_rows_),
                  "set data.global_batch to the batch that the file was written for");
  }

  std::string path_;
  h5::File file_;
  std::vector<CropKind> kinds_;
  std::int64_t batch_rows_, rank_;
  Start start_;
  std::int64_t update_;
  std::uint64_t rows_ = 0;
  Batch batch_;
  std::vector<device::Buffer> memory_;
  std::vector<float> planar_;
};

}  // namespace

std::unique_ptr<BatchSource> open_crops(const config::Config& config, int rank, int ranks, Start start) {
  return std::make_unique<CropsSource>(config, rank, ranks, start);
}

}  // namespace seer::data
