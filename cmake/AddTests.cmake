# SPDX-License-Identifier: Apache-2.0
# One executable of unit tests a module (tests/<module>/*.cpp) and one of distributed suites
# (tests/<module>/mpi/*.cpp), the latter registered at 1, 2 and 4 ranks.
find_package(GTest REQUIRED)

# Open MPI: many ranks on few cores, also as root in a container. The user's own runs are left alone.
set(SEER_TEST_ENVIRONMENT
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
    OMPI_MCA_odls_base_num_threads=0 OMP_NUM_THREADS=1 "SEER_MPIEXEC=${MPIEXEC_EXECUTABLE}"
    "ASAN_OPTIONS=detect_leaks=0" "SEER_EXECUTABLE=$<TARGET_FILE:seer>"
    "SEER_WRITE_FAULTS=$<TARGET_FILE:write_faults>" "SEER_TEST_DATA=${PROJECT_SOURCE_DIR}/tests/data")

add_library(seer_test_main STATIC ${PROJECT_SOURCE_DIR}/tests/main.cpp)
target_link_libraries(seer_test_main PRIVATE seer_flags PUBLIC seer_device seer_comm GTest::gtest)
target_include_directories(seer_test_main PUBLIC ${PROJECT_SOURCE_DIR}/tests)
target_compile_definitions(seer_test_main PUBLIC SEER_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                           SEER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")

function(seer_mpi_command out ranks)
  set(${out} ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none ${MPIEXEC_NUMPROC_FLAG} ${ranks} PARENT_SCOPE)
endfunction()

function(add_unit_tests module)
  cmake_parse_arguments(ARG "" "" "LINKS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${module}/*.cpp)
  if(sources)
    add_executable(test_${module} ${sources})
    target_link_libraries(test_${module} PRIVATE seer_flags seer_test_main seer_${module} ${ARG_LINKS} seer_hdf5)
    seer_light(test_${module})
    add_test(NAME unit.${module} COMMAND test_${module})
    set_tests_properties(unit.${module} PROPERTIES LABELS unit TIMEOUT 900 ENVIRONMENT "${SEER_TEST_ENVIRONMENT}")
  endif()
  file(GLOB mpi_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${module}/mpi/*.cpp)
  if(mpi_sources)
    add_executable(test_${module}_mpi ${mpi_sources})
    target_link_libraries(test_${module}_mpi PRIVATE seer_flags seer_test_main seer_${module} ${ARG_LINKS} seer_hdf5)
    seer_light(test_${module}_mpi)
    foreach(ranks 1 2 4)
      seer_mpi_command(mpi ${ranks})
      add_test(NAME mpi.${module}.${ranks} COMMAND ${mpi} $<TARGET_FILE:test_${module}_mpi>)
      set_tests_properties(mpi.${module}.${ranks} PROPERTIES LABELS mpi TIMEOUT 900 PROCESSORS ${ranks}
                           ENVIRONMENT "${SEER_TEST_ENVIRONMENT}")
    endforeach()
  endif()
endfunction()

# End-to-end: tests/run/<name>.sh drives the executable as a user would; 77 says that it could not here.
function(add_run_tests)
  file(GLOB scripts CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/run/test_*.sh)
  foreach(script ${scripts})
    get_filename_component(name ${script} NAME_WE)
    string(REPLACE "test_" "run." name ${name})
    add_test(NAME ${name} COMMAND bash ${script})
    set_tests_properties(${name} PROPERTIES LABELS run TIMEOUT 1200 PROCESSORS 2 SKIP_RETURN_CODE 77
                         ENVIRONMENT "${SEER_TEST_ENVIRONMENT}")
  endforeach()
endfunction()
