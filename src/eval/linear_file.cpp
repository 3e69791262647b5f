// SPDX-License-Identifier: Apache-2.0
// Files of linear evaluation: the state of a training, and a classifier (docs/formats.md).
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "seer/base/error.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/eval/linear.hpp"

namespace seer::eval {
namespace {

constexpr const char* kProbeFormat = "seer-probe";
constexpr const char* kHeadFormat = "seer-head";

/// Throws if the file is there and is something else, or cannot be written.
void require_own(const std::string& path, const char* format) {
  if (std::filesystem::exists(path)) {
    bool ours = false;
    try {
      const auto file = h5::File::open(path);
      ours = file.has("/", "format") && file.get_string("/", "format") == format;
    } catch (const Error&) {  // not HDF5
    }
    if (!ours)
      throw Error(ExitCode::input, fmt::format("{} exists and was not written by this command", path),
                  "choose another name");
  }
  const auto partial = path + ".partial";
  if (!std::ofstream(partial, std::ios::binary | std::ios::app))
    throw Error(ExitCode::file, fmt::format("cannot write {}: {}", partial, std::strerror(errno)));
}

}  // namespace

void save_probe(const comm::Communicator& comm, const std::string& path, const std::string& identity,
                std::int64_t update, ProbeTrainer& trainer) {
  comm::agree(comm, "create the checkpoint", [&] {
    if (comm.is_root()) require_own(path, kProbeFormat);
  });
  auto file = h5::File::create(path + ".partial", &comm);
  file.set("/", "identity", identity);
  file.set("/", "update", update);
  trainer.save(file, comm.is_root());
  file.set("/", "version", std::int64_t{1});
  file.set("/", "format", std::string(kProbeFormat));
  file.close();
  comm.barrier();
  comm::agree(comm, "rename the checkpoint", [&] {
    if (comm.is_root()) checkpoint::rename_durably(path + ".partial", path);
  });
}

std::int64_t load_probe(const comm::Communicator& comm, const std::string& path, const std::string& identity,
                        ProbeTrainer& trainer) {
  std::int64_t update = 0;
  comm::agree(comm, "read the checkpoint", [&] {
    if (comm.is_root()) {
      if (std::filesystem::exists(path)) update = 1;
      require_own(path, kProbeFormat);  // before the first update, not at the first save
    }
  });
  comm.broadcast(&update, sizeof update);
  if (update == 0) return 0;
  comm::agree(comm, "read the checkpoint", [&] {
    const auto file = h5::File::open(path);
    if (const auto found = file.get_string("/", "identity"); found != identity)
      throw Error(
          ExitCode::input,
          fmt::format("{} is the checkpoint of another task: found \"{}\", wanted \"{}\"", path, found, identity),
          "name another file, or remove this one");
    update = file.get_int("/", "update");
    trainer.load(file);
  });
  return update;
}

void write_head(const std::string& path, const LinearHead& head, const LinearSource& source,
                const std::vector<std::string>& classes, const LinearTask& task, const LinearResult& result) {
  require_own(path, kHeadFormat);
  const auto partial = path + ".partial";
  auto file = h5::File::create(partial);
  const auto& columns = source.columns()[result.head.feature];
  file.create_dataset("/weight", h5::Type::f32, {head.bias.size(), static_cast<std::uint64_t>(columns.width)});
  file.write("/weight", h5::Type::f32, 0, head.weight.size(), head.weight.data());
  file.create_dataset("/bias", h5::Type::f32, {head.bias.size()});
  file.write("/bias", h5::Type::f32, 0, head.bias.size(), head.bias.data());
  if (!classes.empty()) file.set("/", "classes", classes);
  file.set("/", "source", source.info().source);
  file.set("/", "weights_xxh3", source.info().recipe.weights);
  file.set("/", "data", source.train().name);
  file.set("/", "layer", columns.feature);
  file.set("/", "protocol", task.protocol.name);
  file.set("/", "rate", result.head.rate);
  file.set("/", "decay", result.head.decay);
  file.set("/", "batchnorm", std::int64_t{result.head.batchnorm});
  file.set("/", "version", std::int64_t{1});
  file.set("/", "format", std::string(kHeadFormat));
  file.close();
  checkpoint::rename_durably(partial, path);
}

}  // namespace seer::eval
