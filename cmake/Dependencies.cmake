# SPDX-License-Identifier: Apache-2.0
# Everything seer links. find_package and pkg-config only, so a site's modules or Spack serve as well as apt.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenMP REQUIRED COMPONENTS CXX)  # oneDNN's threads; one per rank unless OMP_NUM_THREADS says more
find_package(MPI 3.1 REQUIRED COMPONENTS C)
set(HDF5_PREFER_PARALLEL ON)
if(CMAKE_BINARY_DIR MATCHES " ")  # find_package asks HDF5's compiler wrapper, which does not work in such a folder
  pkg_search_module(HDF5 REQUIRED hdf5-openmpi>=1.10 hdf5-mpi>=1.10)
  set(HDF5_C_INCLUDE_DIRS ${HDF5_INCLUDE_DIRS})
  set(HDF5_C_LIBRARIES ${HDF5_LINK_LIBRARIES})
  set(HDF5_IS_PARALLEL ON)
else()
  find_package(HDF5 1.10 REQUIRED COMPONENTS C)
endif()
if(NOT HDF5_IS_PARALLEL)
  message(FATAL_ERROR "HDF5 ${HDF5_VERSION} at ${HDF5_C_LIBRARIES} was built without MPI; install a parallel HDF5 "
                      "(Debian: libhdf5-openmpi-dev) or set HDF5_ROOT to one.")
endif()
find_package(dnnl REQUIRED)  # Debian's also wants OpenCL's headers: ocl-icd-opencl-dev
# Not asked for above: oneDNN's version file accepts the same major version only, and both 2 and 3 will do.
if(dnnl_VERSION VERSION_LESS 2.6)
  message(FATAL_ERROR "oneDNN ${dnnl_VERSION} at ${dnnl_DIR} is too old; 2.6 or newer is needed.")
endif()
include(FindSeerKokkos)
if(SEER_CUDA)
  include(FindSeerCuda)
endif()

pkg_check_modules(turbojpeg REQUIRED IMPORTED_TARGET libturbojpeg)
pkg_check_modules(libjpeg REQUIRED IMPORTED_TARGET libjpeg)
pkg_check_modules(spng REQUIRED IMPORTED_TARGET spng)
pkg_check_modules(webp REQUIRED IMPORTED_TARGET libwebp libwebpdemux)
pkg_check_modules(archive REQUIRED IMPORTED_TARGET libarchive)
pkg_check_modules(xxhash REQUIRED IMPORTED_TARGET libxxhash)
find_package(Protobuf REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(fmt REQUIRED)
find_path(TOMLPLUSPLUS_INCLUDE_DIR toml++/toml.h REQUIRED)
find_path(RANDOM123_INCLUDE_DIR Random123/philox.h REQUIRED)

# Their headers are not ours to mend: all as system includes.
add_library(seer_mpi INTERFACE)
target_link_libraries(seer_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(seer_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
add_library(seer_hdf5 INTERFACE)
target_include_directories(seer_hdf5 SYSTEM INTERFACE ${HDF5_C_INCLUDE_DIRS})
target_link_libraries(seer_hdf5 INTERFACE ${HDF5_C_LIBRARIES})
