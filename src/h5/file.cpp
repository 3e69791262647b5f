// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "support.hpp"

namespace seer::h5 {
Id access(const comm::Communicator* comm, bool create, const std::string& path) {
  // No printing of the error stack. Once would be enough, but another library may have switched it on again.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Id list(check(H5Pcreate(H5P_FILE_ACCESS), path, "file access properties"), H5Pclose);
  H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
  // The format of HDF5 1.8 allows attributes over 64 KB (class names) and does not mark who has the file open.
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
    // Align data sets with the stripes of a parallel file system; small objects stay packed.
    if (create) H5Pset_alignment(list, 65536, 1 << 20);
  }
  return list;
}

namespace {

// Attributes: fixed-length strings and single numbers. Nothing of variable length is read.

// We never write larger attributes. The limit bounds what a hostile file can make us allocate.
constexpr std::uint64_t kMaxAttributeBytes = std::uint64_t{1} << 26;

bool has_attribute(hid_t owner, const std::string& path, const std::string& object, const std::string& name) {
  return check(H5Aexists(owner, name.c_str()), path, fmt::format("attribute {} of {}", name, object)) > 0;
}

Id open_attribute(hid_t file, const std::string& path, const std::string& object, const std::string& name) {
  Id owner = open_object(file, path, object);
  if (!has_attribute(owner, path, object, name))
    fail(path, fmt::format("{} has no attribute {}", object == "/" ? "the file" : object, name));
  return Id(check(H5Aopen(owner, name.c_str(), H5P_DEFAULT), path, fmt::format("attribute {}", name)), H5Aclose);
}

// `count`: of a list; nothing: a single value.
void put(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         const void* values, std::optional<hsize_t> count = {}) {
  const Lock lock;
  Id space(check(count ? H5Screate_simple(1, &*count, nullptr) : H5Screate(H5S_SCALAR), path, name), H5Sclose);
  Id owner = open_object(file, path, object);
  if (H5Aexists(owner, name.c_str()) > 0) check(H5Adelete(owner, name.c_str()), path, name);
  const std::string what = fmt::format("attribute {} of {}", name, object);
  Id attribute(check(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), path, what), H5Aclose);
  check(H5Awrite(attribute, type, values), path, what);
}

enum class Shape { list, any };

// Reads fixed-length strings.
std::vector<std::string> texts(hid_t file, const std::string& path, const std::string& object, const std::string& name,
                               Shape wanted) {
  const Lock lock;
  Id attribute = open_attribute(file, path, object, name);
  Id type(check(H5Aget_type(attribute), path, name), H5Tclose);
  if (H5Tget_class(type) != H5T_STRING) fail(path, fmt::format("attribute {} is not text", name));
  if (H5Tis_variable_str(type) != 0)
    fail(path, fmt::format("attribute {} is a variable-length string", name),
         "write text as fixed-length strings (h5py: numpy.bytes_)");
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  const auto kind = H5Sget_simple_extent_type(space);
  if (kind != H5S_SCALAR && kind != H5S_SIMPLE) fail(path, fmt::format("attribute {} has no value", name));
  if (wanted == Shape::list && kind == H5S_SCALAR)
    fail(path, fmt::format("attribute {} is one string, wanted a list", name));
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  const std::size_t length = H5Tget_size(type);
  if (count < 0 || length == 0 || length > kMaxAttributeBytes ||
      static_cast<std::uint64_t>(count) > kMaxAttributeBytes / length)
    fail(path, fmt::format("attribute {} declares {} strings of {} bytes, which is not allowed", name, count, length));
  // The stored size is a limit too: a few bytes must not declare megabytes.
  const auto stored = H5Aget_storage_size(attribute);
  if (stored < static_cast<std::uint64_t>(count) * length)
    fail(path, fmt::format("attribute {} has fewer bytes than it declares", name));
  std::string all(static_cast<std::size_t>(count) * length, '\0');
  if (count > 0) check(H5Aread(attribute, type, all.data()), path, fmt::format("attribute {}", name));
  std::vector<std::string> out;
  for (std::size_t at = 0; at < all.size(); at += length)
    out.push_back(all.substr(at, std::min(all.find('\0', at) - at, length)));
  return out;
}

template <class T>
T number(hid_t file, const std::string& path, const std::string& object, const std::string& name, hid_t type,
         H5T_class_t wanted, const char* kind) {
  const Lock lock;
  Id attribute = open_attribute(file, path, object, name);
  Id stored(check(H5Aget_type(attribute), path, name), H5Tclose);
  Id space(check(H5Aget_space(attribute), path, name), H5Sclose);
  if (H5Tget_class(stored) != wanted || H5Tget_size(stored) > 8 || H5Sget_simple_extent_npoints(space) != 1)
    fail(path, fmt::format("attribute {} of {} is not {}", name, object, kind));
  T value{};
  check(H5Aread(attribute, type, &value), path, fmt::format("attribute {}", name));
  return value;
}

}  // namespace

File File::create(const std::string& path, const comm::Communicator* comm, bool truncate) {
  const Lock lock;
  Id fapl = access(comm, true, path);
  Id fcpl(check(H5Pcreate(H5P_FILE_CREATE), path, "file creation properties"), H5Pclose);
  H5Pset_obj_track_times(fcpl, false);  // equal contents, equal bytes
  const hid_t id = H5Fcreate(path.c_str(), truncate ? H5F_ACC_TRUNC : H5F_ACC_EXCL, fcpl, fapl);
  return File(path, Id(check(id, path, "creating"), H5Fclose));
}

File File::open(const std::string& path, const comm::Communicator* comm, bool writable) {
  // HDF5 says "unable to open" for everything, and would wait on a pipe, so check first. Only one rank does: a thousand
  // must not.
  std::int64_t state[2] = {0, 0};
  if (comm == nullptr || comm->is_root()) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
      state[0] = errno;
    else if (!S_ISREG(info.st_mode))
      state[0] = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    state[1] = info.st_size;
  }
  if (comm != nullptr) comm->broadcast(state, sizeof state);
  if (state[0] == EINVAL) fail(path, "is not a regular file");
  if (state[0] != 0) fail(path, std::strerror(static_cast<int>(state[0])));
  if (state[1] == 0) fail(path, "is empty (0 bytes)", "write it again");
  const Lock lock;
  Id fapl = access(comm, false, path);
  const hid_t id = H5Fopen(path.c_str(), writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl);
  if (id < 0) fail(path, fmt::format("cannot be opened as HDF5 ({} bytes): {}", state[1], reason()));
  return File(path, Id(id, H5Fclose));
}

bool File::exists(const std::string& object) const {
  const Lock lock;
  return reachable(id_, path_, object);
}

bool File::is_group(const std::string& object) const {
  const Lock lock;
  return H5Iget_type(open_object(id_, path_, object)) == H5I_GROUP;
}

std::vector<std::string> File::list(const std::string& group) const {
  const Lock lock;
  Id object = open_object(id_, path_, group);
  if (H5Iget_type(object) != H5I_GROUP) fail(path_, fmt::format("{} is not a group", group));
  using Links = std::vector<std::pair<std::string, H5L_type_t>>;
  const auto add = [](hid_t, const char* found, const H5L_info_t* info, void* out) -> herr_t {
    auto& all = *static_cast<Links*>(out);
    all.emplace_back(found, info->type);
    return all.size() > 10'000'000 ? -1 : 0;
  };
  Links links;
  hsize_t at = 0;
  check(H5Literate(object, H5_INDEX_NAME, H5_ITER_INC, &at, add, &links), path_, fmt::format("listing {}", group));
  std::vector<std::string> names;
  for (const auto& [name, type] : links) {
    expect_inside(type, path_, (group == "/" ? "" : group) + "/" + name);
    names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void File::create_group(const std::string& group) {
  const Lock lock;
  Id list(check(H5Pcreate(H5P_GROUP_CREATE), path_, group), H5Pclose);
  H5Pset_obj_track_times(list, false);
  const Id links = utf8_links(path_);
  const hid_t made = H5Gcreate2(id_, group.c_str(), links, list, H5P_DEFAULT);
  Id(check(made, path_, fmt::format("creating {}", group)), H5Gclose);
}

void File::close() {
  const Lock lock;
  if (id_ < 0) return;
  // Flush first: if H5Fclose fails, HDF5 1.10 keeps a file that it can neither close nor forget.
  const herr_t flushed = H5Fflush(id_, H5F_SCOPE_GLOBAL);
  const std::string why = flushed < 0 ? reason() : "";
  const herr_t closed = H5Fclose(id_.release());
  if (flushed < 0) fail(path_, fmt::format("writing: {}", why), "free space on that file system");
  check(closed, path_, "closing");
}

void File::set(const std::string& object, const std::string& name, const std::string& value) {
  const Lock lock;
  const FixedTexts text({value}, path_);
  put(id_, path_, object, name, text.type, text.bytes.data());
}

void File::set(const std::string& object, const std::string& name, std::int64_t value) {
  put(id_, path_, object, name, H5T_STD_I64LE, &value);
}

void File::set(const std::string& object, const std::string& name, double value) {
  put(id_, path_, object, name, H5T_IEEE_F64LE, &value);
}

void File::set(const std::string& object, const std::string& name, const std::vector<std::string>& values) {
  const Lock lock;
  const FixedTexts texts(values, path_);
  put(id_, path_, object, name, texts.type, texts.bytes.data(), values.size());
}

bool File::has(const std::string& object, const std::string& name) const {
  const Lock lock;
  return has_attribute(open_object(id_, path_, object), path_, object, name);
}

std::string File::get_string(const std::string& object, const std::string& name) const {
  auto values = texts(id_, path_, object, name, Shape::any);
  if (values.size() != 1) fail(path_, fmt::format("attribute {} holds {} strings, wanted 1", name, values.size()));
  return values[0];
}

std::vector<std::string> File::get_strings(const std::string& object, const std::string& name) const {
  return texts(id_, path_, object, name, Shape::list);
}

std::int64_t File::get_int(const std::string& object, const std::string& name) const {
  return number<std::int64_t>(id_, path_, object, name, H5T_STD_I64LE, H5T_INTEGER, "an integer");
}

double File::get_double(const std::string& object, const std::string& name) const {
  return number<double>(id_, path_, object, name, H5T_IEEE_F64LE, H5T_FLOAT, "a floating-point number");
}

std::vector<std::string> File::attributes(const std::string& object) const {
  const Lock lock;
  Id owner = open_object(id_, path_, object);
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* found, const H5A_info_t*, void* out) -> herr_t {
    auto& all = *static_cast<std::vector<std::string>*>(out);
    all.emplace_back(found);
    return all.size() > 1'000'000 ? -1 : 0;
  };
  hsize_t at = 0;
  check(H5Aiterate2(owner, H5_INDEX_NAME, H5_ITER_INC, &at, add, &names), path_, object);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace seer::h5
