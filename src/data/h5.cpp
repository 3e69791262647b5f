// SPDX-License-Identifier: Apache-2.0
#include "seer/data/h5.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>

#include "seer/base/error.hpp"

static_assert(std::endian::native == std::endian::little, "files are little-endian and read without conversion");

namespace seer::data::h5 {
namespace {

// Independent transfers go in pieces: MPI-IO counts are int below HDF5.
constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << 28;
// Larger attributes are no attributes of ours; bounds what a hostile file makes us allocate.
constexpr std::uint64_t kMaxAttributeBytes = std::uint64_t{1} << 26;
// Deflate shrinks at most about 1030 times: more elements than this cannot be in the stored bytes.
constexpr std::uint64_t kMaxInflation = 1100;
constexpr int kMaxRank = 8;

herr_t collect(unsigned n, const H5E_error2_t* entry, void* out) {
  auto& text = *static_cast<std::string*>(out);
  if (entry->desc == nullptr || n > 16) return 0;
  // Innermost first: the reason, then who asked for it.
  if (n == 0) {
    text = entry->desc;
  } else if (n == 1 || n == 2) {
    text += fmt::format(" < {}", entry->desc);
  }
  return 0;
}

// HDF5's own reason for the failure just met.
std::string reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &text);
  H5Eclear2(H5E_DEFAULT);
  // System errors hold a dump of times, descriptors and addresses around the one thing that matters.
  const std::string mark = "error message = '";
  if (auto at = text.find(mark); at != std::string::npos) {
    const auto start = at + mark.size();
    text = fmt::format("{}: {}", text.substr(0, text.find(':')), text.substr(start, text.find('\'', start) - start));
  }
  return text.empty() ? "HDF5 gives no reason" : text;
}

[[noreturn]] void fail(const std::string& path, const std::string& what, std::string remedy = "",
                       std::source_location where = std::source_location::current()) {
  throw Error(ExitCode::file, fmt::format("{}: {}", path, what), std::move(remedy), where);
}

// `id` as returned, or Error with the object and HDF5's reason.
hid_t check(hid_t id, const std::string& path, const std::string& what,
            std::source_location where = std::source_location::current()) {
  if (id < 0) {
    const auto why = reason();
    const bool full = why.find("No space left") != std::string::npos || why.find("quota") != std::string::npos;
    fail(path, fmt::format("{}: {}", what, why), full ? "make room on that file system" : "", where);
  }
  return id;
}

// HDF5 prints its error stack by default; once is enough, but another library may have switched it on again.
void quiet() { H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr); }

hid_t file_type(Type type) {
  switch (type) {
    case Type::u8: return H5T_STD_U8LE;
    case Type::i32: return H5T_STD_I32LE;
    case Type::u32: return H5T_STD_U32LE;
    case Type::i64: return H5T_STD_I64LE;
    case Type::u64: return H5T_STD_U64LE;
    case Type::f32: return H5T_IEEE_F32LE;
    case Type::f64: return H5T_IEEE_F64LE;
  }
  return -1;
}

std::optional<Type> our_type(hid_t type) {
  for (Type t : {Type::u8, Type::i32, Type::u32, Type::i64, Type::u64, Type::f32, Type::f64}) {
    if (H5Tequal(type, file_type(t)) > 0) return t;
  }
  return std::nullopt;
}

Id access(const comm::Communicator* comm, bool create, const std::string& path) {
  Id list(check(H5Pcreate(H5P_FILE_ACCESS), path, "file access properties"), H5Pclose);
  H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
  // 1.8's format: attributes over 64 KB (class names) and no marks of who has the file open.
  H5Pset_libver_bounds(list, H5F_LIBVER_V18, H5F_LIBVER_LATEST);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(list, 1, 1);  // file systems without locks are common on clusters
#endif
  if (comm != nullptr) {
    check(H5Pset_fapl_mpio(list, comm->mpi(), MPI_INFO_NULL), path, "MPI-IO");
    H5Pset_coll_metadata_write(list, true);
    // One rank reads metadata and shares it. A file being created has its metadata in every rank's cache already, and
    // ranks may then write different numbers of ranges.
    if (!create) H5Pset_all_coll_metadata_ops(list, true);
    // Data sets start on stripes of a parallel file system; small objects stay packed.
    if (create) H5Pset_alignment(list, 65536, 1 << 20);
  }
  return list;
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

// Whether `object` can be reached through hard links alone: soft and external ones would lead out of what we checked.
bool reachable(hid_t file, const std::string& path, const std::string& object) {
  std::string prefix;
  std::size_t at = 0;
  while (at < object.size()) {
    while (at < object.size() && object[at] == '/') ++at;
    const auto end = std::min(object.find('/', at), object.size());
    if (end == at) break;
    prefix += fmt::format("/{}", object.substr(at, end - at));
    at = end;
    const htri_t there = H5Lexists(file, prefix.c_str(), H5P_DEFAULT);
    if (there < 0) fail(path, fmt::format("{}: {}", prefix, reason()));
    if (there == 0) return false;
    H5L_info_t info;
    check(H5Lget_info(file, prefix.c_str(), &info, H5P_DEFAULT), path, prefix);
    if (info.type != H5L_TYPE_HARD) {
      fail(path, fmt::format("{} is a {} link; only objects inside the file are read", prefix,
                             info.type == H5L_TYPE_SOFT ? "soft" : "external or user-defined"));
    }
  }
  return true;
}

Id open_object(hid_t file, const std::string& path, const std::string& object) {
  if (!reachable(file, path, object)) fail(path, fmt::format("there is no {}", object));
  return Id(check(H5Oopen(file, object.c_str(), H5P_DEFAULT), path, object), H5Oclose);
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

// A flat row-major range as boxes: at most 2 rank - 1 of them, in order, each contiguous in the flat range.
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
    // The outermost dimension of which a whole step starts here and fits, else the next one in.
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

Id text_type(std::size_t bytes, const std::string& path) {
  Id type(check(H5Tcopy(H5T_C_S1), path, "string type"), H5Tclose);
  check(H5Tset_size(type, std::max<std::size_t>(1, bytes)), path, "string type");
  H5Tset_cset(type, H5T_CSET_UTF8);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  return type;
}

std::string padded(const std::vector<std::string>& values, std::size_t length) {
  std::string all(values.size() * length, '\0');
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::memcpy(all.data() + i * length, values[i].data(), values[i].size());
  }
  return all;
}

// Contiguous, never filled, and placed at once: an empty one takes no place, and HDF5 refuses to give it one.
Id create_plain(hid_t file, const std::string& path, const std::string& name, hid_t type, const Dims& dims, bool place) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  Id space(dims.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), sizes.data(), nullptr),
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

Id open_attribute(hid_t file, const std::string& path, const std::string& object, const std::string& name) {
  Id owner = open_object(file, path, object);
  const htri_t there = H5Aexists(owner, name.c_str());
  if (there < 0) fail(path, fmt::format("attribute {} of {}: {}", name, object, reason()));
  if (there == 0) fail(path, fmt::format("{} has no attribute {}", object == "/" ? "the file" : object, name));
  return Id(check(H5Aopen(owner, name.c_str(), H5P_DEFAULT), path, fmt::format("attribute {}", name)), H5Aclose);
}

void put(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         hid_t space, const void* values) {
  Id owner = open_object(file, path, object);
  if (H5Aexists(owner, name.c_str()) > 0) check(H5Adelete(owner, name.c_str()), path, name);
  Id attribute(check(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), path,
                     fmt::format("attribute {} of {}", name, object)),
               H5Aclose);
  check(H5Awrite(attribute, type, values), path, fmt::format("attribute {} of {}", name, object));
}

// Fixed-length strings of an attribute: one where it is scalar.
std::vector<std::string> texts(hid_t attribute, const std::string& path, const std::string& name, bool& scalar) {
  Id type(check(H5Aget_type(attribute), path, name), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING) fail(path, fmt::format("attribute {} is not text", name));
  if (H5Tis_variable_str(type) != 0) {
    fail(path, fmt::format("attribute {} is a variable-length string", name),
         "write text as fixed-length strings (h5py: numpy.bytes_)");
  }
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  const auto kind = H5Sget_simple_extent_type(space);
  if (kind != H5S_SCALAR && kind != H5S_SIMPLE) fail(path, fmt::format("attribute {} has no value", name));
  scalar = kind == H5S_SCALAR;
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  const std::size_t length = H5Tget_size(type);
  if (count < 0 || length == 0 || length > kMaxAttributeBytes ||
      static_cast<std::uint64_t>(count) > kMaxAttributeBytes / length) {
    fail(path, fmt::format("attribute {} declares {} strings of {} bytes", name, count, length));
  }
  // What is stored bounds it too: a few bytes must not declare megabytes.
  const auto stored = H5Aget_storage_size(attribute);
  if (stored < static_cast<std::uint64_t>(count) * length) fail(path, fmt::format("attribute {} is cut off", name));
  std::string all(static_cast<std::size_t>(count) * length, '\0');
  if (count > 0) check(H5Aread(attribute, type, all.data()), path, fmt::format("attribute {}", name));
  std::vector<std::string> out;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::string text = all.substr(i * length, length);
    text.resize(std::min(text.find('\0'), text.size()));
    out.push_back(std::move(text));
  }
  return out;
}

template <class T>
T number(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         H5T_class_t wanted, const char* kind) {
  Id attribute = open_attribute(file, path, object, name);
  Id stored(check(H5Aget_type(attribute), path, name), H5Tclose);
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  if (H5Tget_class(stored) != wanted || H5Tget_size(stored) > 8 || H5Sget_simple_extent_npoints(space) != 1) {
    fail(path, fmt::format("attribute {} of {} is not {}", name, object, kind));
  }
  T value{};
  check(H5Aread(attribute, type, &value), path, fmt::format("attribute {}", name));
  return value;
}

herr_t add_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  auto& names = *static_cast<std::vector<std::pair<std::string, H5L_type_t>>*>(out);
  names.emplace_back(name, info->type);
  return names.size() > 10'000'000 ? -1 : 0;
}

herr_t add_attribute(hid_t, const char* name, const H5A_info_t*, void* out) {
  auto& names = *static_cast<std::vector<std::string>*>(out);
  names.emplace_back(name);
  return names.size() > 1'000'000 ? -1 : 0;
}

}  // namespace

std::size_t type_bytes(Type type) {
  switch (type) {
    case Type::u8: return 1;
    case Type::i32:
    case Type::u32:
    case Type::f32: return 4;
    case Type::i64:
    case Type::u64:
    case Type::f64: return 8;
  }
  return 0;
}

Id::~Id() { reset(); }

void Id::reset() {
  if (id_ >= 0 && close_ != nullptr) {
    close_(id_);
    H5Eclear2(H5E_DEFAULT);
  }
  id_ = -1;
  close_ = nullptr;
}

File File::create(const std::string& path, const comm::Communicator* comm, bool truncate) {
  quiet();
  Id fapl = access(comm, true, path);
  Id fcpl(check(H5Pcreate(H5P_FILE_CREATE), path, "file creation properties"), H5Pclose);
  H5Pset_obj_track_times(fcpl, false);  // equal contents, equal bytes
  File file;
  file.path_ = path;
  file.id_ = Id(check(H5Fcreate(path.c_str(), truncate ? H5F_ACC_TRUNC : H5F_ACC_EXCL, fcpl, fapl), path, "creating"),
                H5Fclose);
  return file;
}

File File::open(const std::string& path, const comm::Communicator* comm, bool writable) {
  quiet();
  // HDF5 says "unable to open" for everything, and would wait on a pipe. One rank looks: a thousand must not.
  std::int64_t state[2] = {0, 0};
  if (comm == nullptr || comm->is_root()) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      state[0] = errno;
    } else if (!S_ISREG(info.st_mode)) {
      state[0] = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    }
    state[1] = info.st_size;
  }
  if (comm != nullptr) comm->broadcast(state, sizeof state);
  if (state[0] == EINVAL) fail(path, "is not a regular file");
  if (state[0] != 0) fail(path, std::strerror(static_cast<int>(state[0])));
  if (state[1] == 0) fail(path, "is empty (0 bytes)", "write it again");
  Id fapl = access(comm, false, path);
  File file;
  file.path_ = path;
  file.id_ = Id(H5Fopen(path.c_str(), writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl), H5Fclose);
  if (file.id_ < 0) fail(path, fmt::format("cannot be opened as HDF5 ({} bytes): {}", state[1], reason()));
  return file;
}

bool File::exists(const std::string& object) const { return reachable(id_, path_, object); }

bool File::is_group(const std::string& object) const {
  return H5Iget_type(open_object(id_, path_, object)) == H5I_GROUP;
}

std::vector<std::string> File::list(const std::string& group) const {
  Id object = open_object(id_, path_, group);
  if (H5Iget_type(object) != H5I_GROUP) fail(path_, fmt::format("{} is not a group", group));
  std::vector<std::pair<std::string, H5L_type_t>> links;
  hsize_t at = 0;
  check(H5Literate(object, H5_INDEX_NAME, H5_ITER_INC, &at, add_link, &links), path_, fmt::format("listing {}", group));
  std::vector<std::string> names;
  for (auto& [name, type] : links) {
    if (type != H5L_TYPE_HARD) {
      fail(path_, fmt::format("{}/{} is a {} link; only objects inside the file are read", group == "/" ? "" : group,
                              name, type == H5L_TYPE_SOFT ? "soft" : "external or user-defined"));
    }
    names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

void File::create_group(const std::string& group) {
  Id list(check(H5Pcreate(H5P_GROUP_CREATE), path_, group), H5Pclose);
  H5Pset_obj_track_times(list, false);
  Id links(check(H5Pcreate(H5P_LINK_CREATE), path_, group), H5Pclose);
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  Id made(check(H5Gcreate2(id_, group.c_str(), links, list, H5P_DEFAULT), path_, fmt::format("creating {}", group)),
          H5Gclose);
}

void File::set(const std::string& object, const std::string& name, const std::string& value) {
  Id type = text_type(value.size(), path_);
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  // c_str: an empty text still hands HDF5 its one byte.
  put(id_, path_, object, name, type, space, value.c_str());
}

void File::set(const std::string& object, const std::string& name, std::int64_t value) {
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  put(id_, path_, object, name, H5T_STD_I64LE, space, &value);
}

void File::set(const std::string& object, const std::string& name, double value) {
  Id space(check(H5Screate(H5S_SCALAR), path_, name), H5Sclose);
  put(id_, path_, object, name, H5T_IEEE_F64LE, space, &value);
}

void File::set(const std::string& object, const std::string& name, const std::vector<std::string>& values) {
  std::size_t length = 1;
  for (const auto& v : values) length = std::max(length, v.size());
  Id type = text_type(length, path_);
  const std::string all = padded(values, length);
  const hsize_t count = values.size();
  Id space(check(H5Screate_simple(1, &count, nullptr), path_, name), H5Sclose);
  put(id_, path_, object, name, type, space, all.c_str());
}

bool File::has(const std::string& object, const std::string& name) const {
  Id owner = open_object(id_, path_, object);
  const htri_t there = H5Aexists(owner, name.c_str());
  if (there < 0) fail(path_, fmt::format("attribute {} of {}: {}", name, object, reason()));
  return there > 0;
}

std::string File::get_string(const std::string& object, const std::string& name) const {
  bool scalar = false;
  auto values = texts(open_attribute(id_, path_, object, name), path_, name, scalar);
  if (values.size() != 1) fail(path_, fmt::format("attribute {} holds {} strings, wanted 1", name, values.size()));
  return values[0];
}

std::vector<std::string> File::get_strings(const std::string& object, const std::string& name) const {
  bool scalar = false;
  auto values = texts(open_attribute(id_, path_, object, name), path_, name, scalar);
  if (scalar) fail(path_, fmt::format("attribute {} is one string, wanted a list", name));
  return values;
}

std::int64_t File::get_int(const std::string& object, const std::string& name) const {
  return number<std::int64_t>(id_, path_, object, name, H5T_STD_I64LE, H5T_INTEGER, "an integer");
}

double File::get_double(const std::string& object, const std::string& name) const {
  return number<double>(id_, path_, object, name, H5T_IEEE_F64LE, H5T_FLOAT, "a floating-point number");
}

std::vector<std::string> File::attributes(const std::string& object) const {
  Id owner = open_object(id_, path_, object);
  std::vector<std::string> names;
  hsize_t at = 0;
  check(H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, &at, add_attribute, &names), path_, object);
  std::sort(names.begin(), names.end());
  return names;
}

void File::create_dataset(const std::string& name, Type type, const Dims& dims) {
  const auto count = product(dims, type_bytes(type), path_, name);
  create_plain(id_, path_, name, file_type(type), dims, count > 0);
}

void File::create_strings(const std::string& name, const std::vector<std::string>& values) {
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
  Id dataset = open_dataset(id_, path_, name);
  Id type(check(H5Dget_type(dataset), path_, name), H5Tclose);
  const Dims dims = dims_of(dataset, path_, name);
  if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || dims.size() != 1) {
    fail(path_, fmt::format("data set {} is not a list of fixed-length strings", name));
  }
  return {dims[0], H5Tget_size(type)};
}

Description File::describe(const std::string& name) const {
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
    fail(path_, fmt::format("data set {} needs {} bytes from {} on, the file has {}", name, out.bytes, offset,
                            static_cast<std::uint64_t>(file_bytes)),
         "the file is cut off or damaged: write it again");
  }
  out.plain = true;
  out.file_offset = offset;
  return out;
}

std::uint64_t File::elements(const std::string& name) const {
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
  Id dataset = open_dataset(id_, path_, name);
  transfer(dataset, path_, name, type, begin, count, const_cast<void*>(values), Direction::write);
}

void File::read(const std::string& name, Type type, std::uint64_t begin, std::uint64_t count, void* values) const {
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

void File::flush() { check(H5Fflush(id_, H5F_SCOPE_GLOBAL), path_, "flushing"); }

void File::close() {
  if (id_ < 0) return;
  // Flushed first: where H5Fclose fails HDF5 1.10 is left with a file it can neither close nor forget.
  const herr_t flushed = H5Fflush(id_, H5F_SCOPE_GLOBAL);
  const std::string why = flushed < 0 ? reason() : "";
  const hid_t id = id_;
  id_.release();
  const herr_t closed = H5Fclose(id);
  if (flushed < 0) fail(path_, fmt::format("writing: {}", why), "make room on that file system");
  check(closed, path_, "closing");
}

}  // namespace seer::data::h5
