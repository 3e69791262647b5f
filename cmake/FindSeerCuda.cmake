# SPDX-License-Identifier: Apache-2.0
# Makes seer_cuda: the device libraries, CUDA 12 or 13 with cuDNN 9, cuBLASLt, NCCL and NVTX. Their places: CUDAToolkit_ROOT,
# CUDNN_ROOT, NCCL_ROOT, or the toolkit's own folders. A root that is set is the only place that is looked in.
find_package(CUDAToolkit 12.0 REQUIRED)

function(seer_cuda_library name header version_header macro lowest)
  string(TOLOWER ${name} library)
  set(names NAMES ${library} lib${library}.so.9 lib${library}.so.2)
  set(root ${${name}_ROOT})
  if(NOT root)
    set(root $ENV{${name}_ROOT})
  endif()
  # What an earlier configure found stays in the cache: with another root it is looked for again.
  if(NOT "${root}" STREQUAL "${SEER_${name}_LOOKED_IN}")
    unset(SEER_${name}_INCLUDE CACHE)
    unset(SEER_${name}_LIBRARY CACHE)
  endif()
  set(SEER_${name}_LOOKED_IN "${root}" CACHE INTERNAL "")
  if(root)
    find_path(SEER_${name}_INCLUDE ${header} PATHS ${root} PATH_SUFFIXES include NO_DEFAULT_PATH)
    find_library(SEER_${name}_LIBRARY ${names} PATHS ${root} PATH_SUFFIXES lib lib64 NO_DEFAULT_PATH)
    if(NOT SEER_${name}_INCLUDE OR NOT SEER_${name}_LIBRARY)
      message(FATAL_ERROR "${name}_ROOT is ${root}, which has no include/${header} with a lib/ or lib64/ that holds "
                          "lib${library}; correct it, or unset it to take that beside the CUDA toolkit.")
    endif()
  endif()
  find_path(SEER_${name}_INCLUDE ${header} HINTS ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
  find_library(SEER_${name}_LIBRARY ${names} HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}
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

# Kokkos does not start on a device older than what it was built for; on a newer one its code is translated.
function(seer_kokkos_architecture)
  set(built ${Kokkos_CUDA_ARCHITECTURES})
  if(NOT built MATCHES "^[0-9]+$")  # not told, or several
    return()
  endif()
  foreach(architecture ${SEER_CUDA_ARCHITECTURES})
    string(REGEX MATCH "^[0-9]+" number "${architecture}")
    if(number AND number LESS built)
      message(FATAL_ERROR "SEER_CUDA_ARCHITECTURES holds ${architecture}, but Kokkos at ${SEER_KOKKOS_PLACE} was built "
                          "for ${built} and does not start on older devices. Leave ${architecture} out, or set "
                          "Kokkos_ROOT to one built for it.")
    endif()
  endforeach()
endfunction()

# Kernels run on the device where this Kokkos was built for it; else all but them is compiled and linked.
set(SEER_KOKKOS_CUDA OFF)
if(Kokkos_DEVICES MATCHES CUDA OR TARGET Kokkos::CUDA)
  set(SEER_KOKKOS_CUDA ON)
  # Kokkos names the driver's library, but src/device/cuda/binding.cpp has what it calls: nothing then needs the library.
  target_link_options(seer_cuda INTERFACE LINKER:--as-needed)
  seer_kokkos_architecture()
else()
  message(WARNING "SEER_CUDA=ON: Kokkos ${SEER_KOKKOS_VERSION} at ${SEER_KOKKOS_PLACE} has no Cuda: kernels stay on the "
                  "host, so nothing can be trained on a device. Set Kokkos_ROOT to one built with Kokkos_ENABLE_CUDA.")
endif()
