include_guard(GLOBAL)

# annulus_rank_test(NAME name SOURCES ... [MPI_SOURCES ...] LIBS ... [NP ...] [TIMEOUT s]): the same
# test bodies, compiled once, as NAME_local (ranks are threads) and as NAME_mpi_npN under mpirun.
# Bodies run through each_world() of tests/support/each_world.h.
function(annulus_rank_test)
  cmake_parse_arguments(ARG "" "NAME;TIMEOUT" "SOURCES;MPI_SOURCES;LIBS;NP" ${ARGN})
  if(NOT ARG_NP)
    set(ARG_NP 1 2 3 4 5 8)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_library(${ARG_NAME}_bodies OBJECT ${ARG_SOURCES})
  target_include_directories(${ARG_NAME}_bodies PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${ARG_NAME}_bodies PRIVATE ${ARG_LIBS} annulus_flags GTest::gmock)
  annulus_test(NAME ${ARG_NAME}_local
    SOURCES $<TARGET_OBJECTS:${ARG_NAME}_bodies> ${PROJECT_SOURCE_DIR}/tests/support/each_world_threads.cpp
    LIBS ${ARG_LIBS} TIMEOUT ${ARG_TIMEOUT})
  # As their MPI twins: some bodies time what overlaps, with a core for each of two ranks.
  set_tests_properties(${ARG_NAME}_local PROPERTIES PROCESSORS 2)
  if(MPI_CXX_FOUND)
    annulus_mpi_test(${ARG_NAME} "${ARG_MPI_SOURCES}" "${ARG_LIBS}" "${ARG_NP}" ${ARG_TIMEOUT})
  endif()
endfunction()

function(annulus_mpi_test name sources libs sizes timeout)
  set(program ${name}_mpi)
  add_executable(${program} $<TARGET_OBJECTS:${name}_bodies> ${sources}
    ${PROJECT_SOURCE_DIR}/tests/support/each_world_mpi.cpp)
  target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${program} PRIVATE ${libs} annulus_flags GTest::gmock GTest::gtest MPI::MPI_CXX)
  set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests)
  if(ANNULUS_SANITIZE)
    math(EXPR timeout "${timeout} * 4")
  endif()
  foreach(np ${sizes})
    add_test(NAME ${name}_mpi_np${np}
      COMMAND ${MPIEXEC_EXECUTABLE} -np ${np} --bind-to none $<TARGET_FILE:${program}>)
    set_tests_properties(${name}_mpi_np${np} PROPERTIES TIMEOUT ${timeout} LABELS "cpu;mpi"
      ENVIRONMENT "${mpi_environment}" PROCESSORS 2)
  endforeach()
endfunction()
