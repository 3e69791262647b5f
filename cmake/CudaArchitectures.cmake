# SPDX-License-Identifier: Apache-2.0
# Before CMake tries nvcc, whose own words for an architecture it does not know are no help.
find_package(CUDAToolkit 12.0 REQUIRED)
if(NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})  # of the same toolkit as the libraries
endif()
foreach(architecture ${SEER_CUDA_ARCHITECTURES})
  string(REGEX MATCH "^[0-9]+" number "${architecture}")
  if(number AND number LESS 70)
    message(FATAL_ERROR "SEER_CUDA_ARCHITECTURES holds ${architecture}: compute capability 7.0 (V100) or newer is needed.")
  elseif(number AND number LESS 75 AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 13)
    message(FATAL_ERROR "SEER_CUDA_ARCHITECTURES holds ${architecture} (V100), which CUDA ${CUDAToolkit_VERSION} at "
                        "${CUDAToolkit_BIN_DIR} has given up; load a CUDA 12 module or set CUDAToolkit_ROOT to one, with "
                        "a cuDNN 9 and an NCCL for CUDA 12.")
  endif()
endforeach()
set(CMAKE_CUDA_ARCHITECTURES ${SEER_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_STANDARD 20)
