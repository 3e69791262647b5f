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

hid_t file_type(Type type) {
  switch (type) {
    case Type::u8:
      return H5T_STD_U8LE;
    case Type::i32:
      return H5T_STD_I32LE;
    case Type::u32:
      return H5T_STD_U32LE;
    case Type::i64:
      return H5T_STD_I64LE;
    case Type::u64:
      return H5T_STD_U64LE;
    case Type::f32:
      return H5T_IEEE_F32LE;
    case Type::f64:
      return H5T_IEEE_F64LE;
  }
  return -1;
}

std::optional<Type> our_type(hid_t type) {
  for (Type t : {Type::u8, Type::i32, Type::u32, Type::i64, Type::u64, Type::f32, Type::f64}) {
    if (H5Tequal(type, file_type(t)) > 0) return t;
  }
  return std::nullopt;
}

std::uint64_t product(const Dims& dims, std::uint64_t element_bytes, const std::string& path, const std::string& name) {
  // Zero first: [2^63, 0] is empty, not too large.
  if (std::find(dims.begin(), dims.end(), 0U) != dims.end()) return 0;
  std::uint64_t n = 1;
  for (auto d : dims) {
    if (d > (std::numeric_limits<std::uint64_t>::max() >> 1) / n / std::max<std::uint64_t>(1, element_bytes)) {
      fail(path, fmt::format("data set {} declares impossible dimensions", name));
    }
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
  if (kind != H5S_SIMPLE) fail(path, fmt::format("data set {} has no simple shape", name));
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0 || rank > kMaxRank) fail(path, fmt::format("data set {} has {} dimensions", name, rank));
  std::array<hsize_t, kMaxRank> sizes{};
  check(H5Sget_simple_extent_dims(space, sizes.data(), nullptr), path, name);
  return Dims(sizes.begin(), sizes.begin() + rank);
}

// A flat row-major range as boxes: at most 2 d - 1 of them for d dimensions, in order, each contiguous in the flat
// range.
struct Box {
  Dims start, count;
  std::uint64_t elements = 0;
};

std::vector<Box> boxes(const Dims& dims, std::uint64_t begin, std::uint64_t count) {
  const std::size_t rank = dims.size();
  std::vector<std::uint64_t> stride(rank, 1);
  for (std::size_t i = rank - 1; i-- > 0;) stride[i] = stride[i + 1] * dims[i + 1];
  std::vector<Box> out;
  while (count > 0) {
    // Find the outermost dimension in which a whole step starts here and fits.
    std::size_t axis = 0;
    while (axis + 1 < rank && (begin % stride[axis] != 0 || count < stride[axis])) ++axis;
    Box box{Dims(rank, 0), Dims(rank, 1), 0};
    for (std::size_t i = 0; i < rank; ++i) box.start[i] = begin / stride[i] % dims[i];
    const std::uint64_t steps = std::min(count / stride[axis], dims[axis] - box.start[axis]);
    box.count[axis] = steps;
    for (std::size_t i = axis + 1; i < rank; ++i) box.count[i] = dims[i];
    box.elements = steps * stride[axis];
    begin += box.elements;
    count -= box.elements;
    out.push_back(std::move(box));
  }
  return out;
}

enum class Direction { read, write };

void transfer(hid_t dataset, const std::string& path, const std::string& name, Type type, std::uint64_t begin,
              std::uint64_t count, void* values, Direction direction) {
  const Dims dims = dims_of(dataset, path, name);
  const auto total = product(dims, 8, path, name);
  if (begin > total || count > total - begin) {
    fail(path, fmt::format("data set {} has {} elements, wanted [{}, {})", name, total, begin, begin + count));
  }
  if (count == 0) return;
  auto* bytes = static_cast<std::uint8_t*>(values);
  auto move = [&](hid_t memory, hid_t file_space) {
    const herr_t status = direction == Direction::read
                              ? H5Dread(dataset, file_type(type), memory, file_space, H5P_DEFAULT, bytes)
                              : H5Dwrite(dataset, file_type(type), memory, file_space, H5P_DEFAULT, bytes);
    check(status, path, fmt::format("{} {}", direction == Direction::read ? "reading" : "writing", name));
  };
  if (dims.empty()) {
    move(H5S_ALL, H5S_ALL);
    return;
  }
  Id space(check(H5Dget_space(dataset), path, name), H5Sclose);
  const std::uint64_t piece = kPieceBytes / type_bytes(type);
  for (std::uint64_t done = 0; done < count; done += piece) {
    for (const Box& box : boxes(dims, begin + done, std::min(piece, count - done))) {
      std::array<hsize_t, kMaxRank> start{}, size{};
      std::copy(box.start.begin(), box.start.end(), start.begin());
      std::copy(box.count.begin(), box.count.end(), size.begin());
      check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr), path, name);
      const hsize_t elements = box.elements;
      Id memory(check(H5Screate_simple(1, &elements, nullptr), path, name), H5Sclose);
      move(memory, space);
      bytes += box.elements * type_bytes(type);
    }
  }
}

// Creates a contiguous data set, never filled. `place`: allocate it at once; not for an empty one, because HDF5 refuses
// that.
Id create_plain(hid_t file, const std::string& path, const std::string& name, hid_t type, const Dims& dims,
                bool place) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  Id space(
      dims.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), sizes.data(), nullptr),
      H5Sclose);
  check(space, path, name);
  Id list(check(H5Pcreate(H5P_DATASET_CREATE), path, name), H5Pclose);
  H5Pset_layout(list, H5D_CONTIGUOUS);
  H5Pset_obj_track_times(list, false);
  H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
  if (place) H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);
  Id links(check(H5Pcreate(H5P_LINK_CREATE), path, name), H5Pclose);
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  return Id(check(H5Dcreate2(file, name.c_str(), type, space, links, list, H5P_DEFAULT), path,
                  fmt::format("creating data set {}", name)),
            H5Dclose);
}

}  // namespace

std::size_t type_bytes(Type type) {
  switch (type) {
    case Type::u8:
      return 1;
    case Type::i32:
    case Type::u32:
    case Type::f32:
      return 4;
    case Type::i64:
    case Type::u64:
    case Type::f64:
      return 8;
  }
  return 0;
}

void File::create_dataset(const std::string& name, Type type, const Dims& dims) {
  const Lock lock;
  const auto count = product(dims, type_bytes(type), path_, name);
  create_plain(id_, path_, name, file_type(type), dims, count > 0);
}

void File::create_strings(const std::string& name, const std::vector<std::string>& raw) {
  const Lock lock;
  const auto values = texts_of(raw);
  std::size_t length = 1;
  for (const auto& v : values) length = std::max(length, v.size());
  Id type = text_type(length, path_);
  Id made = create_plain(id_, path_, name, type, {values.size()}, !values.empty());
  const std::string all = padded(values, length);
  if (!values.empty()) {
    check(H5Dwrite(made, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all.data()), path_, fmt::format("writing {}", name));
  }
}

std::pair<std::uint64_t, std::uint64_t> File::describe_strings(const std::string& name) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Id type(check(H5Dget_type(dataset), path_, name), H5Tclose);
  const Dims dims = dims_of(dataset, path_, name);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || dims.size() != 1) {
    fail(path_, fmt::format("data set {} is not a list of fixed-length strings", name));
  }
  return {dims[0], H5Tget_size(type)};
}

Description File::describe(const std::string& name) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Description out;
  Id type(check(H5Dget_type(dataset), path_, name), H5Tclose);
  out.type = our_type(type);
  out.dims = dims_of(dataset, path_, name);
  const std::uint64_t element_bytes = out.type ? type_bytes(*out.type) : H5Tget_size(type);
  out.bytes = product(out.dims, element_bytes, path_, name) * element_bytes;
  Id list(check(H5Dget_create_plist(dataset), path_, name), H5Pclose);
  if (!out.type || H5Pget_layout(list) != H5D_CONTIGUOUS || H5Pget_nfilters(list) != 0 ||
      H5Pget_external_count(list) != 0) {
    return out;
  }
  if (out.bytes == 0) {
    out.plain = true;
    return out;
  }
  const haddr_t offset = H5Dget_offset(dataset);
  H5Eclear2(H5E_DEFAULT);
  if (offset == HADDR_UNDEF) return out;  // never allocated
  hsize_t file_bytes = 0;
  check(H5Fget_filesize(id_, &file_bytes), path_, "size of the file");
  if (offset > file_bytes || out.bytes > file_bytes - offset) {
    fail(path_,
         fmt::format("data set {} needs {} bytes from {} on, the file has {}", name, out.bytes, offset,
                     static_cast<std::uint64_t>(file_bytes)),
         "the file is cut off or damaged: write it again");
  }
  out.plain = true;
  out.file_offset = offset;
  return out;
}

std::uint64_t File::elements(const std::string& name) const {
  const Lock lock;
  const Description d = describe(name);
  if (!d.plain) {
    Id dataset = open_dataset(id_, path_, name);
    if (d.bytes / kMaxInflation > std::max<std::uint64_t>(H5Dget_storage_size(dataset), 4096)) {
      fail(path_, fmt::format("data set {} declares {} bytes, more than its stored data can hold", name, d.bytes));
    }
  }
  std::uint64_t count = 1;
  for (auto n : d.dims) count *= n;
  return count;
}

void File::write(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, const void* values) {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  transfer(dataset, path_, name, type, begin, count, const_cast<void*>(values), Direction::write);
}

void File::read(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, void* values) const {
  const Lock lock;
  Id dataset = open_dataset(id_, path_, name);
  Id list(check(H5Dget_create_plist(dataset), path_, name), H5Pclose);
  if (H5Pget_layout(list) == H5D_VIRTUAL || H5Pget_external_count(list) != 0) {
    fail(path_, fmt::format("data set {} keeps its data in other files", name));
  }
  Id stored(check(H5Dget_type(dataset), path_, name), H5Tclose);
  const auto kind = H5Tget_class(stored);
  if (kind != H5T_INTEGER && kind != H5T_FLOAT) fail(path_, fmt::format("data set {} does not hold numbers", name));
  transfer(dataset, path_, name, type, begin, count, values, Direction::read);
}

}  // namespace seer::h5
