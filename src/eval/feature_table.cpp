// SPDX-License-Identifier: Apache-2.0
#include "seer/eval/feature_table.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "seer/base/checksum.hpp"
#include "seer/base/clock.hpp"
#include "seer/base/error.hpp"
#include "seer/base/log.hpp"
#include "seer/checkpoint/raw.hpp"

namespace seer::eval {

using h5::File;
using h5::Type;

void FeatureTable::append(const FeatureTable& rows) {
  const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  add(values, rows.values);
  add(labels, rows.labels);
  add(index, rows.index);
  add(bad, rows.bad);
  add(checksum, rows.checksum);
}

std::string time_left(const Eta& eta) {
  const auto seconds = eta.seconds_left();
  return seconds && *seconds > 0 ? fmt::format(", {} left", duration_text(*seconds)) : "";
}

std::int64_t for_each_batch(const comm::Communicator& comm, const data::DataSet& data, const data::EvalOptions& options,
                            const std::string& what,
                            const std::function<std::vector<float>(const data::EvalBatch&)>& features_of,
                            const Sink& sink) {
  std::int64_t bad = 0;
  comm::agree(comm, "features", [&] {
    const std::uint64_t first = slice_begin(data.images(), comm.rank(), comm.size());
    const std::uint64_t last = slice_begin(data.images(), comm.rank() + 1, comm.size());
    if (first == last) return;
    data::EvalReader reader(data, first, last, options);
    std::uint64_t done = 0;
    const Clock clock;
    Eta eta(static_cast<double>(last - first));
    while (const auto* batch = reader.next()) {
      const auto count = static_cast<std::uint64_t>(batch->images);
      sink({.info = {},
            .first = first + done,
            .values = features_of(*batch),
            .labels = batch->labels,
            .index = batch->indices,
            .bad = batch->bad,
            .checksum = checksums(data, first + done, count)});
      done += count;
      eta.done(static_cast<double>(count));
      log::progress(fmt::format("{}: {}/{} images, {:.1f} images/s{}", what,
                                std::min(done * static_cast<std::uint64_t>(comm.size()), data.images()), data.images(),
                                static_cast<double>(done) * comm.size() / clock.seconds(), time_left(eta)));
    }
    bad = reader.bad_images();
    ensure(done == last - first, "the evaluation reader handed out every image of its slice");
  });
  log::finish_progress();
  return comm.all_reduce(bad, comm::Op::sum);
}

FeatureTable pixel_table(const comm::Communicator& comm, const data::DataSet& data, std::int64_t side,
                         const data::EvalOptions& options) {
  FeatureTable out;
  out.info.source = "raw pixels";
  out.info.data = describe(data);
  out.info.layer = "pixels";
  out.info.classes = data.classes();
  out.info.images = data.images();
  out.info.dimension = side * side * 3;
  auto& recipe = out.info.recipe;
  recipe.weights = recipe.recalibration_data = "none";
  recipe.resize = recipe.crop = side;
  recipe.mean = "0 0 0";
  recipe.std = "1 1 1";
  recipe.recalibration_images = 0;
  recipe.precision = "fp32";
  out.first = slice_begin(data.images(), comm.rank(), comm.size());
  auto raw = options;
  raw.raw_side = side;
  for_each_batch(
      comm, data, raw, "raw pixels of " + out.info.data,
      [](const data::EvalBatch& batch) {
        return std::vector<float>(batch.pixels.f32(), batch.pixels.f32() + batch.pixels.elems());
      },
      [&](const FeatureTable& rows) { out.append(rows); });
  return out;
}

std::string describe(const data::DataSet& data) {
  const auto& shards = data.shards();
  return shards.size() == 1 ? shards.front().path
                            : fmt::format("{} and {} more shards", shards.front().path, shards.size() - 1);
}

namespace {

/// Calls visit(data set, type, array, elements of a row) for each array.
template <class Table, class Visit>
void visit_arrays(Table&& rows, std::int64_t dimension, Visit visit) {
  visit("/features", Type::f32, rows.values, static_cast<std::uint64_t>(dimension));
  visit("/labels", Type::i32, rows.labels, 1);
  visit("/index", Type::u64, rows.index, 1);
  visit("/checksum", Type::u64, rows.checksum, 1);
  visit("/bad", Type::u8, rows.bad, 1);
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

// Empty if unknown.
std::string text(const std::string& value) {
  return value;
}
std::string text(std::int64_t value) {
  return value < 0 ? "" : fmt::format("{}", value);
}

/// Meaning and value of each field.
std::vector<std::pair<std::string, std::string>> texts(const Recipe& recipe) {
  std::vector<std::pair<std::string, std::string>> out;
  visit_fields(recipe, [&](auto*, auto* meaning, const auto& value) { out.emplace_back(meaning, text(value)); });
  return out;
}

}  // namespace

void require_alike(const FeatureInfo& train, const std::string& train_name, const FeatureInfo& test,
                   const std::string& test_name) {
  std::vector<std::string> differ, unknown;
  if (train.layer != test.layer) differ.push_back(fmt::format("layer {} against {}", train.layer, test.layer));
  const auto of_train = texts(train.recipe), of_test = texts(test.recipe);
  for (std::size_t i = 0; i < of_train.size(); ++i) {
    const auto& [name, x] = of_train[i];
    const auto& y = of_test[i].second;
    if (name.empty() || (x == y && !x.empty())) continue;
    if (x.empty() || y.empty())
      unknown.push_back(name);
    else
      differ.push_back(fmt::format("{} {} against {}", name, x, y));
  }
  if (!differ.empty()) {
    throw Error(ExitCode::input,
                fmt::format("{} (from {}) and {} (from {}) were not computed alike: {}", train_name, train.source,
                            test_name, test.source, fmt::join(differ, "; ")),
                "compute both with the same seer features options; --recalibrate-from takes the images of one set for "
                "both");
  }
  if (unknown.empty()) return;
  log::warn(
      fmt::format("{} (from {}) and {} (from {}): a table of an older version lacks what must be compared: {}; compute "
                  "both again to "
                  "be sure that they were computed alike",
                  train_name, train.source, test_name, test.source, fmt::join(unknown, ", ")));
}

void ImageSetSum::add(std::span<const std::uint64_t> checksums) {
  for (const auto sum : checksums) {
    sums_[0] += 1;
    sums_[1] += static_cast<std::int64_t>(sum >> 32);
    sums_[2] += static_cast<std::int64_t>(sum & 0xffffffff);
  }
}

std::string ImageSetSum::fingerprint(const comm::Communicator& comm) const {
  auto sums = sums_;
  comm.all_reduce(std::span(sums));
  return fmt::format("{:016x}", checksum(sums.data(), sizeof(sums)));
}

std::vector<std::uint64_t> checksums(const data::DataSet& data, std::uint64_t first, std::uint64_t count) {
  constexpr std::uint64_t kPiece = 65536;
  std::vector<std::uint64_t> out;
  out.reserve(count);
  for (std::uint64_t at = 0; at < count; at += kPiece)
    for (const auto& place : data.places(first + at, std::min(kPiece, count - at))) out.push_back(place.checksum);
  return out;
}

std::vector<std::uint64_t> my_checksums(const data::DataSet& data, const comm::Communicator& comm) {
  const auto first = slice_begin(data.images(), comm.rank(), comm.size());
  std::vector<std::uint64_t> out;
  comm::agree(comm, "reading checksums",
              [&] { out = checksums(data, first, slice_begin(data.images(), comm.rank() + 1, comm.size()) - first); });
  return out;
}

std::int64_t count_common(const comm::Communicator& comm, std::span<const std::uint64_t> train,
                          std::span<const std::uint64_t> test) {
  constexpr std::uint64_t kPiece = 1 << 20;
  std::vector<bool> common(test.size());
  std::vector<std::uint64_t> piece;
  for (int owner = 0; owner < comm.size(); ++owner) {
    std::uint64_t count = train.size();
    comm.broadcast(&count, sizeof count, owner);
    for (std::uint64_t at = 0; at < count; at += piece.size()) {
      piece.resize(std::min(kPiece, count - at));
      if (comm.rank() == owner)
        std::copy_n(train.begin() + static_cast<std::ptrdiff_t>(at), piece.size(), piece.begin());
      comm.broadcast(piece.data(), piece.size() * sizeof(std::uint64_t), owner);
      std::ranges::sort(piece);
      for (std::size_t i = 0; i < test.size(); ++i)
        if (!common[i] && std::ranges::binary_search(piece, test[i])) common[i] = true;
    }
  }
  return comm.all_reduce(static_cast<std::int64_t>(std::ranges::count(common, true)), comm::Op::sum);
}

void warn_of_common(const comm::Communicator& comm, std::span<const std::uint64_t> train, const std::string& train_name,
                    std::span<const std::uint64_t> test, const std::string& test_name) {
  const auto common = count_common(comm, train, test);
  const auto of_train = comm.all_reduce(static_cast<std::int64_t>(train.size()), comm::Op::sum);
  const auto of_test = comm.all_reduce(static_cast<std::int64_t>(test.size()), comm::Op::sum);
  if (common == 0) return;
  constexpr const char* kSense =
      "each such image is its own nearest neighbour, so the accuracy does not hold for new images";
  log::warn(common == of_test && of_train == of_test
                ? fmt::format("training set {} and test set {} are the same {} images: {}", train_name, test_name,
                              of_test, kSense)
                : fmt::format("{} of the {} images of the test set {} are in the training set {} as well: {}", common,
                              of_test, test_name, train_name, kSense));
}

FeatureFileWriter::FeatureFileWriter(const comm::Communicator& comm, const std::string& path, const FeatureInfo& info)
    : comm_(comm),
      path_(path),
      dimension_(info.dimension),
      lock_(lock(comm, path)),
      file_(File::create(path + ".partial", &comm)) {
  file_.set("/", "source", info.source);
  file_.set("/", "data", info.data);
  file_.set("/", "layer", info.layer);
  if (!info.classes.empty()) file_.set("/", "classes", info.classes);
  visit_fields(info.recipe, [&](auto* name, auto*, const auto& value) { file_.set("/", name, value); });
  visit_arrays(FeatureTable(), dimension_, [&](const std::string& name, Type type, const auto&, std::uint64_t elems) {
    file_.create_dataset(name, type, name == "/features" ? h5::Dims{info.images, elems} : h5::Dims{info.images});
  });
}

void FeatureFileWriter::write(const FeatureTable& rows) {
  visit_arrays(rows, dimension_, [&](const char* name, Type type, const auto& values, std::uint64_t elems) {
    file_.write(name, type, rows.first * elems, values.size(), values.data());
  });
  images_.add(rows.checksum);
}

void FeatureFileWriter::close() {
  file_.set("/", "data_xxh3", images_.fingerprint(comm_));
  file_.set("/", "version", std::int64_t{1});
  file_.set("/", "format", std::string("seer-features"));  // last: a file without it is incomplete
  file_.close();
  comm_.barrier();
  comm::agree(comm_, "rename features file", [&] {
    if (!comm_.is_root()) return;
    lock_.reset();  // the file is complete, so others may use it
    checkpoint::rename_durably(path_ + ".partial", path_);
  });
}

FeatureTable read_features(const comm::Communicator& comm, const std::string& path) {
  FeatureTable table;
  comm::agree(comm, "read features", [&] {
    const File file = File::open(path);  // serial: each rank reads its own rows; metadata are a few hundred bytes
    if (!file.has("/", "format") && file.has("/", "weights_xxh3"))
      throw Error(ExitCode::file, fmt::format("{} is an unfinished features file", path), "run `seer features` again");
    if (!file.has("/", "format") || file.get_string("/", "format") != "seer-features")
      throw Error(ExitCode::file,
                  fmt::format("{}: not a features file (attribute format is not \"seer-features\")", path),
                  "features files are written by `seer features`");
    if (const auto version = file.get_int("/", "version"); version != 1)
      throw Error(ExitCode::file, fmt::format("{}: features file of version {}, wanted 1", path, version));
    const auto shape = file.describe("/features");
    if (shape.dims.size() != 2 || shape.type != Type::f32 || shape.dims[0] == 0 || shape.dims[1] == 0)
      throw Error(ExitCode::file, fmt::format("{}: /features is not a float32 table [images, dimension]", path));
    auto& info = table.info;
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
    info.images = shape.dims[0];
    info.dimension = static_cast<std::int64_t>(shape.dims[1]);
    table.first = slice_begin(info.images, comm.rank(), comm.size());
    const std::uint64_t count = slice_begin(info.images, comm.rank() + 1, comm.size()) - table.first;
    visit_arrays(table, info.dimension, [&](const std::string& name, Type type, auto& values, std::uint64_t elems) {
      if (name == "/checksum" && !file.exists(name)) return;  // a table of an older version
      if (const auto found = file.elements(name); found != info.images * elems)
        throw Error(ExitCode::file, fmt::format("{}: {} has {} entries, wanted {} as for the rows of /features", path,
                                                name, found, info.images * elems));
      values.resize(count * elems);
      file.read(name, type, table.first * elems, count * elems, values.data());
    });
  });
  return table;
}

}  // namespace seer::eval
