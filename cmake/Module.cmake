# SPDX-License-Identifier: Apache-2.0
# seer_module(NAME LINKS ...): the static library seer_NAME of all .cpp files in the calling folder; in a device build
# also of those in its folder cuda/, all of them with SEER_CUDA defined.
# Adding a file needs no change here: the list is globbed again at build time.
add_library(seer_flags INTERFACE)
target_include_directories(seer_flags INTERFACE ${PROJECT_SOURCE_DIR}/include)
target_compile_options(seer_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                       -Wcast-align -Wunused -Wnull-dereference -Wdouble-promotion -Wformat=2 -fno-math-errno
                       -Wno-restrict)  # g++ 12 warns falsely where strings are joined (GCC bug 105329)
if(SEER_WERROR)
  target_compile_options(seer_flags INTERFACE -Werror)
endif()
if(SEER_NATIVE)
  target_compile_options(seer_flags INTERFACE -march=native)
endif()
if(SEER_SANITIZE)
  # -Werror and the sanitizers' extra paths do not mix on g++ 12 (false alarms of -Wnull-dereference).
  target_compile_options(seer_flags INTERFACE -fsanitize=${SEER_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=undefined -Wno-null-dereference -Wno-maybe-uninitialized)
  target_link_options(seer_flags INTERFACE -fsanitize=${SEER_SANITIZE})
endif()

function(seer_module name)
  cmake_parse_arguments(ARG "" "" "LINKS;SOURCES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  add_library(seer_${name} STATIC ${sources} ${ARG_SOURCES})
  target_link_libraries(seer_${name} PRIVATE seer_flags PUBLIC ${ARG_LINKS})
  if(SEER_CUDA)
    file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cpp)
    target_sources(seer_${name} PRIVATE ${cuda_sources})
    target_link_libraries(seer_${name} PUBLIC seer_cuda)
  endif()
endfunction()
