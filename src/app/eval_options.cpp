// SPDX-License-Identifier: Apache-2.0
#include "eval_options.hpp"

#include <CLI/CLI.hpp>

#include "seer/device/session.hpp"

namespace seer::app {

void add_eval_choices(CLI::App& command, EvalChoices& choices) {
  command.add_option("--layer", choices.layer, "trunk (average-pooled) or head (normalised embedding)")
      ->check(CLI::IsMember({"trunk", "head"}))
      ->capture_default_str();
  command.add_option("--batch", choices.batch, "Images at a time on each rank")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command.add_option("--resize", choices.resize, "Pixels of the shorter side before the crop")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  command.add_option("--crop", choices.crop, "Pixels of the centre crop")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  command.add_option("--device", choices.device, "Where to compute; auto: on a device where there is one")
      ->check(CLI::IsMember({"auto", "host", "device"}))
      ->capture_default_str();
  command
      .add_option("--recalibrate-batchnorm", choices.recalibrate,
                  "Estimate BatchNorm's running statistics anew at this size of crop from N images of the data "
                  "(eval: of the training set) before features are computed")
      ->check(CLI::NonNegativeNumber)
      ->type_name("N");
}

eval::Layer layer_of(const EvalChoices& choices) {
  return choices.layer == "head" ? eval::Layer::head : eval::Layer::trunk;
}

data::EvalOptions reading_of(const EvalChoices& choices) {
  data::EvalOptions out;
  out.resize = choices.resize;
  out.crop = choices.crop;
  out.batch = choices.batch;
  out.threads = device::threads();
  return out;
}

}  // namespace seer::app
