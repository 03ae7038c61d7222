# Precompiled headers, of others' code alone: our own headers stay what each file includes. Off by
# default, so that a build by hand still shows a file that includes too little; launch/test and CI,
# which come to an empty ccache, have it on: it saves a fifth to a third of a file's compile time.
option(ANNULUS_PCH "Precompile headers of the standard library, fmt and GoogleTest" OFF)

# annulus_pch(NAME name LIBS ... HEADERS ... [OPTIONS ...]): what targets compiled with the same
# flags share.
function(annulus_pch)
  cmake_parse_arguments(ARG "" "NAME" "LIBS;HEADERS;OPTIONS" ${ARGN})
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/pch/${ARG_NAME}.cpp CONTENT "")
  add_library(annulus_pch_${ARG_NAME} OBJECT ${PROJECT_BINARY_DIR}/pch/${ARG_NAME}.cpp)
  target_link_libraries(annulus_pch_${ARG_NAME} PRIVATE annulus_flags ${ARG_LIBS})
  target_compile_options(annulus_pch_${ARG_NAME} PRIVATE ${ARG_OPTIONS})
  target_precompile_headers(annulus_pch_${ARG_NAME} PRIVATE ${ARG_HEADERS})
endfunction()

# annulus_precompile(TARGET KIND): library, program, test_library, test or fmt_header_only (a program
# that carries fmt in itself). gcc wants -fPIC, -fPIE and what headers are configured by to be the same.
function(annulus_precompile target kind)
  if(ANNULUS_PCH)
    target_precompile_headers(${target} REUSE_FROM annulus_pch_${kind})
  endif()
endfunction()

if(ANNULUS_PCH)
  set(pch_headers <algorithm> <array> <chrono> <cmath> <cstdint> <cstdio> <functional> <limits> <map>
    <memory> <numeric> <optional> <span> <string> <string_view> <utility> <variant> <vector> <fmt/format.h>)
  annulus_pch(NAME library LIBS ${ANNULUS_FMT} HEADERS ${pch_headers})
  annulus_pch(NAME program LIBS ${ANNULUS_FMT} HEADERS ${pch_headers} OPTIONS -fPIE)
  if(ANNULUS_BUILD_TESTS)
    annulus_pch(NAME fmt_header_only LIBS fmt::fmt-header-only HEADERS ${pch_headers} OPTIONS -fPIE)
    find_package(GTest REQUIRED)
    list(APPEND pch_headers <random> <thread> <gmock/gmock.h> <gtest/gtest.h>)
    annulus_pch(NAME test_library LIBS ${ANNULUS_FMT} GTest::gmock HEADERS ${pch_headers})
    annulus_pch(NAME test LIBS ${ANNULUS_FMT} GTest::gmock HEADERS ${pch_headers} OPTIONS -fPIE)
  endif()
endif()
