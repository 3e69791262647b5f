// SPDX-License-Identifier: Apache-2.0
// The file that holds a table of features (docs/formats.md).
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <tuple>

#include "seer/base/error.hpp"
#include "seer/checkpoint/raw.hpp"
#include "seer/eval/feature_table.hpp"

namespace seer::eval {

using h5::File;
using h5::Type;

/// Versions of files with one feature, and with several or a map.
constexpr std::int64_t kVersion = 1, kColumnsVersion = 2;

namespace {

/// Calls visit(data set, type, array) for each array beside the features.
template <class Table, class Visit>
void visit_arrays(Table&& rows, Visit visit) {
  visit("/labels", Type::i32, rows.labels);
  visit("/index", Type::u64, rows.index);
  visit("/checksum", Type::u64, rows.checksum);
  visit("/bad", Type::u8, rows.bad);
}

/// The shape of the map, which is the last feature of a row; zeros if there is none.
std::array<std::int64_t, 3> map_of(const FeatureInfo& info) {
  return info.columns.empty() ? std::array<std::int64_t, 3>{} : info.columns.back().map;
}
std::int64_t elems(const std::array<std::int64_t, 3>& map) {
  return map[0] * map[1] * map[2];
}

/// Throws if `path` is an existing file that is not a features file: anything else (such as the shard being read) is
/// somebody's data and must not be replaced.
void refuse_foreign(const std::string& path) {
  if (!std::filesystem::exists(path)) return;
  bool ours = false;
  try {
    const File file = File::open(path);
    ours = file.has("/", "format") && file.get_string("/", "format") == "seer-features";
  } catch (const Error&) {  // not HDF5 at all
  }
  if (!ours) {
    throw Error(ExitCode::input, fmt::format("{} exists and is not a features file", path),
                "choose another name for the output");
  }
}

/// Locks PATH.partial on the root. So the likeliest failures (no such folder, no permission, another process that
/// writes the same file) are found on one rank, before all ranks enter MPI-IO.
std::shared_ptr<void> lock(const comm::Communicator& comm, const std::string& path) {
  std::shared_ptr<void> held;
  comm::agree(comm, "create features file", [&] {
    if (!comm.is_root()) return;
    refuse_foreign(path);
    const std::string partial = path + ".partial";
    const int fd = ::open(partial.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) throw Error(ExitCode::file, fmt::format("cannot create {}: {}", partial, std::strerror(errno)));
    held = std::shared_ptr<void>(nullptr, [fd](void*) { ::close(fd); });
    // If the file system has no locks, the file is written without one.
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      throw Error(ExitCode::file, fmt::format("{} is being written by another process", partial),
                  "wait for it, or choose another name for the output");
  });
  return held;
}

/// Columns [begin, begin + width) of every row.
std::vector<float> columns_of(const std::vector<float>& values, std::int64_t dimension, std::int64_t begin,
                              std::int64_t width) {
  std::vector<float> out;
  out.reserve(values.size() / static_cast<std::size_t>(dimension) * static_cast<std::size_t>(width));
  for (auto row = values.begin(); row != values.end(); row += dimension)
    out.insert(out.end(), row + begin, row + begin + width);
  return out;
}

}  // namespace

FeatureFileWriter::FeatureFileWriter(const comm::Communicator& comm, const std::string& path, const FeatureInfo& info)
    : comm_(comm),
      path_(path),
      map_elems_(elems(map_of(info))),
      vector_elems_(info.dimension - map_elems_),
      version_(info.columns.empty() ? kVersion : kColumnsVersion),
      images_of_all_(info.images),
      lock_(lock(comm, path)),
      file_(File::create(path + ".partial", &comm)) {
  file_.set("/", "source", info.source);
  file_.set("/", "data", info.data);
  file_.set("/", "layer", info.layer);
  if (!info.classes.empty()) file_.set("/", "classes", info.classes);
  visit_fields(info.recipe, [&](auto* name, auto*, const auto& value) { file_.set("/", name, value); });
  if (vector_elems_ > 0)
    file_.create_dataset("/features", Type::f32, {info.images, static_cast<std::uint64_t>(vector_elems_)});
  visit_arrays(FeatureTable(), [&](const std::string& name, Type type, const auto&) {
    file_.create_dataset(name, type, {info.images});
  });
  if (info.columns.empty()) return;
  std::vector<std::int64_t> begins;
  for (const auto& columns : info.columns) begins.push_back(columns.begin);
  if (map_elems_ == 0) begins.push_back(info.dimension);
  file_.create_dataset("/columns", Type::i64, {begins.size()});
  if (comm.is_root()) file_.write("/columns", Type::i64, 0, begins.size(), begins.data());
  if (map_elems_ == 0) return;
  h5::Dims dims = {info.images};
  for (const auto side : map_of(info)) dims.push_back(static_cast<std::uint64_t>(side));
  file_.create_dataset("/map", Type::f32, dims);
}

void FeatureFileWriter::write(const FeatureTable& rows) {
  const auto dimension = vector_elems_ + map_elems_;
  for (const auto& [name, begin, width] :
       {std::tuple("/features", std::int64_t{0}, vector_elems_), std::tuple("/map", vector_elems_, map_elems_)}) {
    if (width == 0) continue;
    const auto part = width == dimension ? std::vector<float>() : columns_of(rows.values, dimension, begin, width);
    const auto& values = part.empty() ? rows.values : part;
    file_.write(name, Type::f32, rows.first * static_cast<std::uint64_t>(width), values.size(), values.data());
  }
  visit_arrays(rows, [&](const char* name, Type type, const auto& values) {
    file_.write(name, type, rows.first, values.size(), values.data());
  });
  images_.add(rows.checksum);
  several_.add(rows);
}

void FeatureFileWriter::close() {
  several_.write(comm_, file_, images_of_all_);
  file_.set("/", "data_xxh3", images_.fingerprint(comm_));
  file_.set("/", "version", version_);
  file_.set("/", "format", std::string("seer-features"));  // last: a file without it is incomplete
  file_.close();
  comm_.barrier();
  comm::agree(comm_, "rename features file", [&] {
    if (!comm_.is_root()) return;
    lock_.reset();  // the file is complete, so others may use it
    checkpoint::rename_durably(path_ + ".partial", path_);
  });
}

namespace {

/// Finds the sizes of the table, and the columns of each feature if the file tells them.
void read_columns(const File& file, bool several, FeatureInfo& info) {
  const auto shape_of = [&](const char* name, std::size_t rank) {
    if (!file.exists(name)) return h5::Dims(rank, 0);
    const auto shape = file.describe(name);
    if (shape.dims.size() != rank || shape.type != Type::f32 || std::ranges::find(shape.dims, 0U) != shape.dims.end())
      throw Error(ExitCode::file,
                  fmt::format("{}: {} is not a float32 array of {} dimensions with a row for each image", file.path(),
                              name, rank));
    return shape.dims;
  };
  const auto vectors = shape_of("/features", 2);
  const auto map = several ? shape_of("/map", 4) : h5::Dims(4, 0);
  info.images = std::max(vectors[0], map[0]);
  if (info.images == 0 || std::min(vectors[0], map[0]) % info.images != 0)
    throw Error(ExitCode::file,
                fmt::format("{}: /features{} must have a row for each image", file.path(), several ? " and /map" : ""));
  info.dimension = static_cast<std::int64_t>(vectors[1] + map[1] * map[2] * map[3]);
  if (!several) return;
  auto begins = file.read_all<std::int64_t>("/columns", Type::i64);
  if (map[0] > 0) begins.push_back(info.dimension);
  std::string_view texts = info.layer;
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
    const auto end = std::min(texts.find(','), texts.size());
    info.columns.push_back({std::string(texts.substr(0, end)), begins[i], begins[i + 1] - begins[i]});
    texts.remove_prefix(std::min(end + 1, texts.size()));
  }
  if (map[0] > 0 && !info.columns.empty())
    for (std::size_t i = 0; i < 3; ++i) info.columns.back().map[i] = static_cast<std::int64_t>(map[i + 1]);
  const bool fit = begins.size() > 1 && begins.front() == 0 && begins.back() == info.dimension && texts.empty() &&
                   std::ranges::all_of(info.columns, [](const auto& c) { return c.width > 0 && !c.feature.empty(); }) &&
                   (map[0] == 0 || info.columns.back().width == elems(info.columns.back().map));
  if (!fit)
    throw Error(ExitCode::file, fmt::format("{}: /columns does not fit the features {}", file.path(), info.layer));
}

/// Reads the table's slice of /features and /map, and joins their rows.
void read_values(const File& file, FeatureTable& table, std::uint64_t count) {
  const auto dimension = static_cast<std::uint64_t>(table.info.dimension);
  const auto of_map = static_cast<std::uint64_t>(elems(map_of(table.info)));
  table.values.resize(count * dimension);
  std::uint64_t begin = 0;
  for (const auto& [name, width] : {std::pair("/features", dimension - of_map), std::pair("/map", of_map)}) {
    if (width == dimension) return file.read(name, Type::f32, table.first * width, count * width, table.values.data());
    std::vector<float> part(count * width);
    if (width > 0) file.read(name, Type::f32, table.first * width, count * width, part.data());
    for (std::uint64_t i = 0; i < count; ++i)
      std::copy_n(part.data() + i * width, width, table.values.data() + i * dimension + begin);
    begin += width;
  }
}

}  // namespace

FeatureTable read_features(const comm::Communicator& comm, const std::string& path, std::uint64_t rows_together) {
  FeatureTable table;
  comm::agree(comm, "read features", [&] {
    const File file = File::open(path);  // serial: each rank reads its own rows; metadata are a few hundred bytes
    if (!file.has("/", "format") && file.has("/", "weights_xxh3"))
      throw Error(ExitCode::file, fmt::format("{} is an unfinished features file", path), "run `seer features` again");
    if (!file.has("/", "format") || file.get_string("/", "format") != "seer-features")
      throw Error(ExitCode::file,
                  fmt::format("{}: not a features file (attribute format is not \"seer-features\")", path),
                  "features files are written by `seer features`");
    const auto version = file.get_int("/", "version");
    if (version != kVersion && version != kColumnsVersion)
      throw Error(ExitCode::file, fmt::format("{}: features file of version {}, wanted {} or {}", path, version,
                                              kVersion, kColumnsVersion));
    auto& info = table.info;
    info.file = path;
    info.source = file.get_string("/", "source");
    info.data = file.has("/", "data") ? file.get_string("/", "data") : path;
    info.layer = file.get_string("/", "layer");
    visit_fields(info.recipe, [&]<class Value>(auto* name, auto*, Value& value) {
      if (!file.has("/", name)) return;
      if constexpr (std::is_same_v<Value, std::string>)
        value = file.get_string("/", name);
      else
        value = file.get_int("/", name);
    });
    if (file.has("/", "classes")) info.classes = file.get_strings("/", "classes");
    read_columns(file, version == kColumnsVersion, info);
    const auto groups = info.images / rows_together;
    if (groups * rows_together != info.images)
      throw Error(ExitCode::file,
                  fmt::format("{} has {} rows, wanted a multiple of {}", path, info.images, rows_together));
    table.first = slice_begin(groups, comm.rank(), comm.size()) * rows_together;
    const std::uint64_t count = slice_begin(groups, comm.rank() + 1, comm.size()) * rows_together - table.first;
    read_values(file, table, count);
    visit_arrays(table, [&](const std::string& name, Type type, auto& values) {
      if (name == "/checksum" && !file.exists(name)) return;  // a table of an older version
      if (const auto found = file.elements(name); found != info.images)
        throw Error(ExitCode::file, fmt::format("{}: {} has {} entries, wanted {}, one for each row of features", path,
                                                name, found, info.images));
      values.resize(count);
      file.read(name, type, table.first, count, values.data());
    });
    SeveralClasses::read(file, count, table);
    for (const auto& [least, labels] : {std::pair(-1, &table.labels), std::pair(0, &table.targets.values)})
      for (const auto label : *labels)
        if (label < least)
          throw Error(ExitCode::file, fmt::format("{}: label {}, wanted {} or more", path, label, least),
                      least < 0 ? "-1 is the label of images without one" : "classes are numbered from 0");
  });
  return table;
}

}  // namespace seer::eval
