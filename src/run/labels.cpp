// SPDX-License-Identifier: Apache-2.0
#include "seer/run/labels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/base/names.hpp"
#include "seer/checkpoint/checkpoint.hpp"
#include "seer/data/subset.hpp"
#include "seer/h5/file.hpp"
#include "seer/method/method.hpp"

namespace seer::run {
namespace {

constexpr const char* kPackAgain = "pack them with --labels; seer inspect shows what shards hold";

/// Counts over the images of all ranks.
struct Census {
  std::vector<std::int64_t> of_class;
  std::int64_t without = 0, several = 0, outside = 0;
};

Census count(const data::DataSet& data, std::int64_t classes, const comm::Communicator& comm) {
  constexpr std::uint64_t kBlockImages = 1 << 16;
  const auto ranks = static_cast<std::uint64_t>(comm.size()), rank = static_cast<std::uint64_t>(comm.rank());
  std::vector<std::int64_t> sums(static_cast<std::size_t>(classes) + 3, 0);
  comm::agree(comm, "reading labels", [&] {
    for (std::uint64_t begin = rank * kBlockImages; begin < data.images(); begin += ranks * kBlockImages) {
      const auto targets = data.targets(begin, std::min(kBlockImages, data.images() - begin));
      for (std::size_t i = 0; i < targets.images(); ++i) {
        const auto of = targets.of(i);
        if (of.empty()) ++sums[0];
        if (of.size() > 1) ++sums[1];
        for (const auto c : of) {
          const bool known = c >= 0 && c < classes;
          ++sums[known ? static_cast<std::size_t>(c) + 3 : 2];
        }
      }
    }
  });
  comm.all_reduce(std::span(sums), comm::Op::sum);
  return {{sums.begin() + 3, sums.end()}, sums[0], sums[1], sums[2]};
}

void check(const config::Config& config, const data::DataSet& data, const comm::Communicator& comm) {
  const auto& shards = config.data.shards;
  const auto images = data.images();
  const auto refuse = [&](const std::string& found, const std::string& remedy) {
    throw Error(ExitCode::input, fmt::format("data.shards {}: {}", shards, found), remedy).as_agreed();
  };
  if (images < static_cast<std::uint64_t>(comm.size()))
    refuse(fmt::format("{} images for {} ranks", images, comm.size()), "use more images or fewer ranks");
  const auto classes = config.finetune.classes;
  const auto found = count(data, classes, comm);
  const bool multi = config.finetune.targets == "multi";
  if (found.outside > 0)
    refuse(fmt::format("{} labels are outside of the {} classes", found.outside, classes),
           "set finetune.classes to the number of classes, or pack the images again");
  const bool none = found.without == static_cast<std::int64_t>(images);
  if (found.without > 0 && (!multi || none))
    refuse(fmt::format("{} of {} images have no class", found.without, images),
           none ? kPackAgain : "leave them out when you pack, or use finetune.targets = \"multi\"");
  if (found.several > 0 && !multi)
    refuse(fmt::format("{} of {} images have several classes", found.several, images),
           "use finetune.targets = \"multi\"");
  std::vector<std::string> absent;
  for (std::size_t c = 0; c < found.of_class.size(); ++c)
    if (found.of_class[c] == 0) absent.push_back(c < data.classes().size() ? data.classes()[c] : std::to_string(c));
  if (const auto present = classes - std::ssize(absent); present < 2 && !multi)
    refuse("all images are of one class", "there is nothing to learn; add images of other classes");
  if (!absent.empty())
    log::warn(fmt::format("{} classes have no image to train on: {}", absent.size(), few_names(absent)));
}

/// Widths of the projection head in a weights file or checkpoint.
std::vector<std::int64_t> head_dims(const std::string& path) {
  namespace fs = std::filesystem;
  const auto from = checkpoint::resolve(path);
  const auto file = h5::File::open(fs::is_directory(from) ? (fs::path(from) / "state.h5").string() : from);
  std::vector<std::int64_t> dims;
  for (int i = 0; file.exists(fmt::format("/model/head.{}.weight", i)); ++i) {
    const auto shape = file.describe(fmt::format("/model/head.{}.weight", i)).dims;
    if (dims.empty()) dims.push_back(static_cast<std::int64_t>(shape.at(1)));
    dims.push_back(static_cast<std::int64_t>(shape.at(0)));
  }
  return dims;
}

}  // namespace

Task complete(const config::Config& config, const comm::Communicator& comm) {
  Task task{config, {}};
  if (!method::kind(config).reads_labels) return task;
  auto& out = task.config;
  auto& finetune = out.finetune;
  if (finetune.head_layers > 0 && !finetune.from.empty()) {
    comm::agree(comm, "reading finetune.from", [&] {
      if (comm.is_root()) out.head.dims = head_dims(finetune.from);
      if (comm.is_root() && std::ssize(out.head.dims) <= finetune.head_layers)
        throw Error(ExitCode::input,
                    fmt::format("finetune.from {}: its projection head has {} layers, finetune.head_layers is {}",
                                finetune.from, std::max<std::ptrdiff_t>(std::ssize(out.head.dims) - 1, 0),
                                finetune.head_layers),
                    "keep fewer layers; 0: the classifier takes the pooled features");
    });
    auto count = out.head.dims.size();
    comm.broadcast(&count, sizeof count);
    out.head.dims.resize(count);
    comm.broadcast(out.head.dims.data(), count * sizeof(std::int64_t));
  }
  if (config.data.source != "shards") return task;
  const auto data = data::DataSet::open(config.data.shards, comm);
  const auto named = std::ssize(data.classes());
  comm::agree(comm, "classes", [&] {
    if (!data.has_labels())
      throw Error(ExitCode::input, fmt::format("data.shards {}: the images have no labels", config.data.shards),
                  kPackAgain);
    if (finetune.classes == 0 && named == 0)
      throw Error(ExitCode::input, fmt::format("data.shards {} name no classes", config.data.shards),
                  "set finetune.classes to their number");
    if (finetune.classes != 0 && named != 0 && finetune.classes != named)
      throw Error(ExitCode::input,
                  fmt::format("finetune.classes = {}, but data.shards {} name {} classes", finetune.classes,
                              config.data.shards, named),
                  "leave finetune.classes out");
  });
  if (finetune.classes == 0) finetune.classes = named;
  check(out, data::subset_of(data, data::subset_choice(config.data), comm), comm);
  task.classes = data.classes();
  return task;
}

std::vector<std::int32_t> same_classes(const std::vector<std::string>& classes, const data::DataSet& test) {
  const auto& names = test.classes();
  if (names.empty() != classes.empty())
    throw Error(ExitCode::input,
                fmt::format("data.{} names classes, data.{} does not", names.empty() ? "shards" : "test_shards",
                            names.empty() ? "test_shards" : "shards"),
                "pack both with the same kind of labels");
  std::vector<std::int32_t> out;
  std::vector<std::string> unknown;
  for (const auto& name : names) {
    const auto found = std::ranges::find(classes, name);
    if (found == classes.end()) unknown.push_back(name);
    out.push_back(static_cast<std::int32_t>(found - classes.begin()));
  }
  if (!unknown.empty())
    throw Error(
        ExitCode::input,
        fmt::format("data.test_shards has {} classes that data.shards lack: {}", unknown.size(), few_names(unknown)),
        "test on images of the classes that the network learns");
  return out;
}

}  // namespace seer::run
