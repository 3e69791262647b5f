// SPDX-License-Identifier: Apache-2.0
// Files and groups. Attributes and data sets have their own .cpp files.
#include "seer/h5/file.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "support.hpp"

namespace seer::h5 {
namespace {

Id access(const comm::Communicator* comm, bool create, const std::string& path) {
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

herr_t add_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  auto& names = *static_cast<std::vector<std::pair<std::string, H5L_type_t>>*>(out);
  names.emplace_back(name, info->type);
  return names.size() > 10'000'000 ? -1 : 0;
}

}  // namespace

File File::create(const std::string& path, const comm::Communicator* comm, bool truncate) {
  const Lock lock;
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
  // HDF5 says "unable to open" for everything, and would wait on a pipe, so check first. Only one rank does: a thousand
  // must not.
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
  const Lock lock;
  quiet();
  Id fapl = access(comm, false, path);
  File file;
  file.path_ = path;
  file.id_ = Id(H5Fopen(path.c_str(), writable ? H5F_ACC_RDWR : H5F_ACC_RDONLY, fapl), H5Fclose);
  if (file.id_ < 0) fail(path, fmt::format("cannot be opened as HDF5 ({} bytes): {}", state[1], reason()));
  return file;
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
  const Lock lock;
  Id list(check(H5Pcreate(H5P_GROUP_CREATE), path_, group), H5Pclose);
  H5Pset_obj_track_times(list, false);
  Id links(check(H5Pcreate(H5P_LINK_CREATE), path_, group), H5Pclose);
  H5Pset_char_encoding(links, H5T_CSET_UTF8);
  Id made(check(H5Gcreate2(id_, group.c_str(), links, list, H5P_DEFAULT), path_, fmt::format("creating {}", group)),
          H5Gclose);
}

void File::flush() {
  const Lock lock;
  check(H5Fflush(id_, H5F_SCOPE_GLOBAL), path_, "flushing");
}

void File::close() {
  const Lock lock;
  if (id_ < 0) return;
  // Flush first: if H5Fclose fails, HDF5 1.10 keeps a file that it can neither close nor forget.
  const herr_t flushed = H5Fflush(id_, H5F_SCOPE_GLOBAL);
  const std::string why = flushed < 0 ? reason() : "";
  const hid_t id = id_;
  id_.release();
  const herr_t closed = H5Fclose(id);
  if (flushed < 0) fail(path_, fmt::format("writing: {}", why), "make room on that file system");
  check(closed, path_, "closing");
}

}  // namespace seer::h5
