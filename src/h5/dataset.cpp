// SPDX-License-Identifier: Apache-2.0
// Creates contiguous data sets, and reads and writes them as flat ranges.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "support.hpp"

static_assert(std::endian::native == std::endian::little, "files are little-endian and read without conversion");

namespace seer::h5 {
namespace {

// Independent transfers go in pieces, because the MPI-IO below HDF5 counts in int.
constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 28;
// Deflate shrinks data at most about 1030 times, so stored bytes cannot hold more than this many times their size.
constexpr std::uint64_t kMaxInflation = 1100;
constexpr int kMaxRank = 8;

/// HDF5's types by Type.
std::array<hid_t, 7> file_types() {
  return {H5T_STD_U8LE, H5T_STD_I32LE, H5T_STD_U32LE, H5T_STD_I64LE, H5T_STD_U64LE, H5T_IEEE_F32LE, H5T_IEEE_F64LE};
}

hid_t file_type(Type type) {
  return file_types().at(static_cast<std::size_t>(type));
}

std::optional<Type> our_type(hid_t type) {
  const auto all = file_types();
  const auto found = std::ranges::find_if(all, [type](hid_t known) { return H5Tequal(type, known) > 0; });
  return found == all.end() ? std::nullopt : std::optional(static_cast<Type>(found - all.begin()));
}

std::uint64_t product(const Dims& dims, std::uint64_t element_bytes, const std::string& path, const std::string& name) {
  // Zero first: [2^63, 0] is empty, not too large.
  if (std::ranges::find(dims, 0U) != dims.end()) return 0;
  std::uint64_t n = 1;
  for (auto d : dims) {
    if (d > (std::numeric_limits<std::uint64_t>::max() >> 1) / n / std::max<std::uint64_t>(1, element_bytes))
      fail(path, fmt::format("data set {} declares impossible dimensions", name));
    n *= d;
  }
  return n;
}

Id open_dataset(hid_t file, const std::string& path, const std::string& name) {
  Id object = open_object(file, path, name);
  if (H5Iget_type(object) != H5I_DATASET) fail(path, fmt::format("{} is not a data set", name));
  return object;
}

Dims dims_of(hid_t dataset, const std::string& path, const std::string& name) {
  Id space(check(H5Dget_space(dataset), path, name), H5Sclose);
  const auto kind = H5Sget_simple_extent_type(space);
  if (kind == H5S_SCALAR) return {};
  if (kind != H5S_SIMPLE) fail(path, fmt::format("data set {} is neither an array nor a single value", name));
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0 || rank > kMaxRank) fail(path, fmt::format("data set {} has {} dimensions", name, rank));
  std::array<hsize_t, kMaxRank> sizes{};
  check(H5Sget_simple_extent_dims(space, sizes.data(), nullptr), path, name);
  return Dims(sizes.begin(), sizes.begin() + rank);
}

struct Box {
  std::array<hsize_t, kMaxRank> start{}, count{};
  hsize_t elements = 0;
};

// A flat row-major range as boxes: at most 2 d - 1 of them for d dimensions, in order, each contiguous in the flat
// range.
std::vector<Box> boxes(const Dims& dims, std::uint64_t begin, std::uint64_t count) {
  const std::size_t rank = dims.size();
  std::vector<std::uint64_t> stride(rank, 1);
  for (std::size_t i = rank - 1; i-- > 0;) stride[i] = stride[i + 1] * dims[i + 1];
  std::vector<Box> out;
  while (count > 0) {
    // Find the outermost dimension in which a whole step starts here and fits.
    std::size_t axis = 0;
    while (axis + 1 < rank && (begin % stride[axis] != 0 || count < stride[axis])) ++axis;
    Box box;
    for (std::size_t i = 0; i < rank; ++i) {
      box.start[i] = begin / stride[i] % dims[i];
      box.count[i] = i < axis ? 1 : dims[i];
    }
    box.count[axis] = std::min<hsize_t>(count / stride[axis], dims[axis] - box.start[axis]);
    box.elements = box.count[axis] * stride[axis];
    begin += box.elements;
    count -= box.elements;
    out.push_back(box);
  }
  return out;
}

// `call`: H5Dread, or H5Dwrite, which has a const pointer to the values.
template <class Call>
void transfer(const Call& call, const char* doing, hid_t dataset, const std::string& path, const std::string& name,
              Type type, std::uint64_t begin, std::uint64_t count, void* values) {
  const Dims dims = dims_of(dataset, path, name);
  const auto total = product(dims, 8, path, name);
  if (begin > total || count > total - begin)
    fail(path, fmt::format("data set {} has {} elements, wanted [{}, {})", name, total, begin, begin + count));
  if (count == 0) return;
  auto* bytes = static_cast<std::uint8_t*>(values);
  const auto move = [&](hid_t memory, hid_t file_space) {
    check(call(dataset, file_type(type), memory, file_space, H5P_DEFAULT, bytes), path,
          fmt::format("{} {}", doing, name));
  };
  if (dims.empty()) return move(H5S_ALL, H5S_ALL);
  Id space(check(H5Dget_space(dataset), path, name), H5Sclose);
  const std::uint64_t element_bytes = H5Tget_size(file_type(type)), piece = kPieceBytes / element_bytes;
  for (std::uint64_t done = 0; done < count; done += piece) {
    for (const Box& box : boxes(dims, begin + done, std::min(piece, count - done))) {
      check(H5Sselect_hyperslab(space, H5S_SELECT_SET, box.start.data(), nullptr, box.count.data(), nullptr), path,
            name);
      Id memory(check(H5Screate_simple(1, &box.elements, nullptr), path, name), H5Sclose);
      move(memory, space);
      bytes += box.elements * element_bytes;
    }
  }
}

// Creates a contiguous data set, never filled.
Id create_plain(hid_t file, const std::string& path, const std::string& name, hid_t type, const Dims& dims) {
  const bool empty = product(dims, H5Tget_size(type), path, name) == 0;
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  const int rank = static_cast<int>(sizes.size());
  Id space(check(rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, sizes.data(), nullptr), path, name),
           H5Sclose);
  Id list(check(H5Pcreate(H5P_DATASET_CREATE), path, name), H5Pclose);
  H5Pset_layout(list, H5D_CONTIGUOUS);
  H5Pset_obj_track_times(list, false);
  H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
  if (!empty) H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);  // HDF5 refuses this for an empty one
  const Id links = utf8_links(path);
  const hid_t made = H5Dcreate2(file, name.c_str(), type, space, links, list, H5P_DEFAULT);
  return Id(check(made, path, fmt::format("creating data set {}", name)), H5Dclose);
}

}  // namespace

void File::create_dataset(const std::string& name, Type type, const Dims& dims) {
  const Lock lock;
  create_plain(id_, path_, name, file_type(type), dims);
}

void File::create_strings(const std::string& name, const std::vector<std::string>& values) {
  const Lock lock;
  const FixedTexts texts(values, path_);
  Id made = create_plain(id_, path_, name, texts.type, {values.size()});
  if (values.empty()) return;
  check(H5Dwrite(made, texts.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, texts.bytes.data()), path_,
        fmt::format("writing {}", name));
}

std::pair<std::uint64_t, std::uint64_t> File::describe_strings(const std::string& name) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Id type(check(H5Dget_type(dataset), path_, name), H5Tclose);
  const Dims dims = dims_of(dataset, path_, name);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || dims.size() != 1)
    fail(path_, fmt::format("data set {} is not a list of fixed-length strings", name));
  return {dims[0], H5Tget_size(type)};
}

Description File::describe(const std::string& name) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Description out;
  Id type(check(H5Dget_type(dataset), path_, name), H5Tclose);
  out.type = our_type(type);
  out.dims = dims_of(dataset, path_, name);
  const std::uint64_t element_bytes = H5Tget_size(type);
  out.bytes = product(out.dims, element_bytes, path_, name) * element_bytes;
  Id list(check(H5Dget_create_plist(dataset), path_, name), H5Pclose);
  if (!out.type || H5Pget_layout(list) != H5D_CONTIGUOUS || H5Pget_nfilters(list) != 0 ||
      H5Pget_external_count(list) != 0)
    return out;
  out.plain = out.bytes == 0;
  if (out.plain) return out;
  const haddr_t offset = H5Dget_offset(dataset);
  H5Eclear2(H5E_DEFAULT);
  if (offset == HADDR_UNDEF) return out;  // never allocated
  hsize_t file_bytes = 0;
  check(H5Fget_filesize(id_, &file_bytes), path_, "size of the file");
  if (offset > file_bytes || out.bytes > file_bytes - offset)
    fail(path_,
         fmt::format("data set {} needs {} bytes from offset {}, but the file has {} bytes", name, out.bytes, offset,
                     static_cast<std::uint64_t>(file_bytes)),
         "the file is truncated or damaged: write it again");
  out.plain = true;
  out.file_offset = offset;
  return out;
}

std::uint64_t File::elements(const std::string& name) const {
  const Lock lock;
  const Description d = describe(name);
  if (!d.plain) {
    Id dataset = open_dataset(id_, path_, name);
    if (d.bytes / kMaxInflation > std::max<std::uint64_t>(H5Dget_storage_size(dataset), 4096))
      fail(path_, fmt::format("data set {} declares {} bytes, more than its stored data can hold", name, d.bytes));
  }
  return product(d.dims, 1, path_, name);
}

void File::write(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, const void* values) {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  transfer(H5Dwrite, "writing", dataset, path_, name, type, begin, count, const_cast<void*>(values));
}

void File::read(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, void* values) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Id list(check(H5Dget_create_plist(dataset), path_, name), H5Pclose);
  if (H5Pget_layout(list) == H5D_VIRTUAL || H5Pget_external_count(list) != 0)
    fail(path_, fmt::format("data set {} keeps its data in other files", name));
  Id stored(check(H5Dget_type(dataset), path_, name), H5Tclose);
  const auto kind = H5Tget_class(stored);
  if (kind != H5T_INTEGER && kind != H5T_FLOAT) fail(path_, fmt::format("data set {} does not hold numbers", name));
  transfer(H5Dread, "reading", dataset, path_, name, type, begin, count, values);
}

}  // namespace seer::h5
