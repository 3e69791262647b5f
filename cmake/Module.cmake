# SPDX-License-Identifier: Apache-2.0
# seer_module(NAME LINKS ...): the static library seer_NAME of all .cpp files in the calling folder; in a device build
# also of the .cpp and .cu files in its folder cuda/, all of them with SEER_CUDA defined.
# Adding a file needs no change here: the list is globbed again at build time.
add_library(seer_flags INTERFACE)
target_include_directories(seer_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)

# What the device's compiler passes on to the host's: it takes other options itself, and its own output has warnings.
function(seer_host_options target scope)
  target_compile_options(${target} ${scope} "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:${ARGN}>")
endfunction()
function(seer_both_options target scope)
  seer_host_options(${target} ${scope} ${ARGN})
  string(REPLACE ";" "," passed "${ARGN}")
  target_compile_options(${target} ${scope} "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${passed}>")
endfunction()

# At -O1 (seer_light below), g++ 12 sees null pointers in std::string where there are none; it also warns falsely where
# strings are joined (-Wrestrict, GCC bug 105329).
seer_host_options(seer_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                  -Wcast-align -Wunused
                  $<IF:$<AND:$<BOOL:$<TARGET_PROPERTY:SEER_LIGHT>>,$<CONFIG:Release>>,-O1,-Wnull-dereference>
                  -Wdouble-promotion -Wformat=2 -Wno-restrict)
seer_both_options(seer_flags INTERFACE -fno-math-errno)
if(SEER_WERROR)
  seer_host_options(seer_flags INTERFACE -Werror)
endif()
if(SEER_NATIVE)
  seer_both_options(seer_flags INTERFACE -march=native)
endif()
if(SEER_SANITIZE)
  # -Werror and the sanitizers' extra paths do not mix on g++ 12 (false alarms of -Wnull-dereference).
  seer_host_options(seer_flags INTERFACE -fsanitize=${SEER_SANITIZE} -fno-omit-frame-pointer
                    -fno-sanitize-recover=undefined -Wno-null-dereference -Wno-maybe-uninitialized)
  target_link_options(seer_flags INTERFACE -fsanitize=${SEER_SANITIZE})
endif()

# For code that waits for files and messages, and for tests: -O1 in a release, which compiles in two thirds of the time.
function(seer_light target)
  set_target_properties(${target} PROPERTIES SEER_LIGHT ON)
endfunction()

# Kokkos' headers want the device's compiler where Kokkos was built for it: the calling folder's files named here then
# go through it, and SEER_KERNELS_CUDA is defined from there upwards.
function(seer_kokkos_module name)
  target_link_libraries(seer_${name} PRIVATE Kokkos::kokkos)
  if(SEER_KOKKOS_CUDA)
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CUDA)
    target_compile_definitions(seer_${name} PUBLIC SEER_KERNELS_CUDA=1)
    target_compile_options(seer_${name} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>")
  endif()
endfunction()

# With KINDS FOLDER also of those in that folder, each of which defines one object of its own name; FOLDER.inc then
# lists these names as SEER_KIND(name), so that a new file is a new kind.
function(seer_module name)
  cmake_parse_arguments(ARG "" "KINDS" "LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(seer_${name} STATIC ${sources})
  if(ARG_KINDS)
    file(GLOB kinds CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_KINDS}/*.cpp)
    target_sources(seer_${name} PRIVATE ${kinds})
    target_include_directories(seer_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_BINARY_DIR})
    set(list "")
    foreach(file ${kinds})
      get_filename_component(kind ${file} NAME_WE)
      string(APPEND list "SEER_KIND(${kind})\n")
    endforeach()
    file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${ARG_KINDS}.inc CONTENT "${list}" @ONLY)
  endif()
  target_link_libraries(seer_${name} PRIVATE seer_flags PUBLIC ${ARG_LINKS})
  if(SEER_CUDA)
    file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu)
    target_sources(seer_${name} PRIVATE ${cuda_sources})
    target_link_libraries(seer_${name} PUBLIC seer_cuda)
  endif()
endfunction()
