// SPDX-License-Identifier: Apache-2.0
// What a FeatureExtractor holds: the model, its weights, and where they compute. Private to features.cpp,
// extractor.cpp and recalibration.cpp.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "seer/device/binding.hpp"
#include "seer/device/device_queue.hpp"
#include "seer/device/mirrored.hpp"
#include "seer/dnn/device_backend.hpp"
#include "seer/eval/features.hpp"
#include "seer/nn/model.hpp"

namespace seer::eval {

struct FeatureExtractor::Impl {
  /// Error(input): a feature of an output that the model does not have.
  Impl(const config::Model& model_config, const config::Head& head_config, std::vector<Feature> wanted,
       std::string from, const std::string& on);

  /// The first call moves the parameters to the memory where the queue works; later calls do nothing.
  void start();
  nn::Context context(nn::Mode mode, nn::StatisticsReduction* group = nullptr);
  /// Reads a checkpoint's update and the normalisation of the run's images, if the file records them.
  void read_origin(const std::string& path, const std::map<std::string, std::string>& about);
  data::EvalOptions normalised(data::EvalOptions options) const {
    options.normalisation = normalisation;
    return options;
  }
  /// Error(input) if maps of images of several sizes are wanted.
  void want_equal_maps(const data::EvalOptions& options) const;

  /// The columns of each feature for images of side x side pixels. The first call runs a picture of one colour through
  /// the trunk if there are features of its inner outputs. Only
  /// the width of a map depends on the side.
  std::vector<FeatureColumns> columns(std::int64_t side);
  std::int64_t dimension(std::int64_t side) {
    const auto all = columns(side);
    return all.back().begin + all.back().width;
  }
  /// pixels: [n, h, w, 3]; out: n rows of `stride` values, on the host.
  void forward(const nn::Context& ctx, device::Tensor pixels, float* out, std::int64_t stride);

  config::Model config_model;
  config::Head config_head;
  std::vector<Feature> features;
  std::string source;
  Recipe recipe;
  config::Augment normalisation;
  nn::Model model;
  std::string wanted_device;
  device::Space space;
  std::unique_ptr<device::DeviceQueue> own_queue;  ///< null: computes on the host
  device::Queue queue;
  device::Buffer parameters;  ///< on the host until start()
  device::Mirrored<float> buffers;
  device::Mirrored<char> on_device;  ///< pixels
  std::unique_ptr<dnn::Backend> dnn;
  device::Pool pool;

 private:
  /// The outputs of a pass, by name.
  struct Outputs {
    device::Tensor trunk, head;
    std::vector<device::Tensor> inner;  ///< as inner_
    const device::Tensor& of(const std::string& name, const std::vector<nn::Tap>& names) const;
  };
  bool uses_head() const;
  device::Tensor bring(device::Tensor pixels);
  /// Runs the trunk, and the head if it is used, and calls use(outputs) while the outputs exist.
  void run(const nn::Context& ctx, device::Tensor pixels, const std::function<void(const Outputs&)>& use);
  /// A copy on the host, or the tensor itself if it is there.
  device::Tensor fetch(device::Tensor tensor, std::vector<float>& values);

  std::vector<nn::Tap> inner_;         ///< the outputs inside the trunk that features use
  std::int64_t shaped_side_ = 0;       ///< 0: not known
  std::vector<device::Shape> shapes_;  ///< of inner_, for one image of shaped_side_
};

}  // namespace seer::eval
