# SPDX-License-Identifier: Apache-2.0
# Makes seer_cuda: the device libraries, CUDA 12 or 13 with cuDNN 9, cuBLASLt, NCCL and NVTX. Their places: CUDAToolkit_ROOT,
# CUDNN_ROOT, NCCL_ROOT, or the toolkit's own folders.
find_package(CUDAToolkit 12.0 REQUIRED)

function(seer_cuda_library name header version_header macro lowest)
  string(TOLOWER ${name} library)
  find_path(SEER_${name}_INCLUDE ${header} HINTS ${${name}_ROOT} $ENV{${name}_ROOT} ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include)
  find_library(SEER_${name}_LIBRARY NAMES ${library} lib${library}.so.9 lib${library}.so.2
               HINTS ${${name}_ROOT} $ENV{${name}_ROOT} ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}
               PATH_SUFFIXES lib lib64)
  if(NOT SEER_${name}_INCLUDE OR NOT SEER_${name}_LIBRARY)
    message(FATAL_ERROR "SEER_CUDA=ON: no ${name} (header ${header}, library lib${library}) beside the CUDA toolkit at "
                        "${CUDAToolkit_LIBRARY_DIR}; load its module or set ${name}_ROOT.")
  endif()
  file(STRINGS ${SEER_${name}_INCLUDE}/${version_header} lines REGEX "#define ${macro}_(MAJOR|MINOR|PATCHLEVEL|PATCH) ")
  set(version "")
  foreach(line ${lines})
    string(REGEX MATCH "[0-9]+$" number "${line}")
    string(APPEND version ".${number}")
  endforeach()
  string(SUBSTRING "${version}" 1 -1 version)
  if(version VERSION_LESS lowest)
    message(FATAL_ERROR "${name} ${version} at ${SEER_${name}_LIBRARY} is too old; ${lowest} or newer is needed.")
  endif()
  set(SEER_${name}_VERSION ${version} PARENT_SCOPE)
  target_include_directories(seer_cuda SYSTEM INTERFACE ${SEER_${name}_INCLUDE})
  target_link_libraries(seer_cuda INTERFACE ${SEER_${name}_LIBRARY})
endfunction()

add_library(seer_cuda INTERFACE)
target_include_directories(seer_cuda SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(seer_cuda INTERFACE CUDA::cudart CUDA::cublasLt CUDA::cublas)
target_compile_definitions(seer_cuda INTERFACE SEER_CUDA=1)
seer_cuda_library(CUDNN cudnn.h cudnn_version.h CUDNN 9.0)
seer_cuda_library(NCCL nccl.h nccl.h NCCL 2.18)

# Kernels run on the device where this Kokkos was built for it; else all but them is compiled and linked.
set(SEER_KOKKOS_CUDA OFF)
if(Kokkos_DEVICES MATCHES CUDA OR TARGET Kokkos::CUDA)
  set(SEER_KOKKOS_CUDA ON)
else()
  message(WARNING "SEER_CUDA=ON: Kokkos ${SEER_KOKKOS_VERSION} at ${SEER_KOKKOS_PLACE} has no Cuda: kernels stay on the "
                  "host, so nothing can be trained on a device. Set Kokkos_ROOT to one built with Kokkos_ENABLE_CUDA.")
endif()
