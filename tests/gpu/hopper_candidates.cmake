# The candidates (tests/support/hopper_candidates.h) as CUDA sources, one .cu each; ci compiles one, so
# that their code stays alive. Spills and serialised products end the build, as in the library.
set(ANNULUS_HOPPER_CANDIDATES_full "lazy 128" "lazy_items 128" "wide_items 128" "wide_steps 128"
  "three_items 64")
set(ANNULUS_HOPPER_CANDIDATES_ci "wide_steps 128")

set(candidate_sources "")
set(candidate_rows "")
foreach(candidate ${ANNULUS_HOPPER_CANDIDATES_${ANNULUS_KERNEL_SET}})
  separate_arguments(parts UNIX_COMMAND "${candidate}")
  list(GET parts 0 NAME)
  list(GET parts 1 HEAD_DIM)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/hopper_${NAME}_${HEAD_DIM}.cu)
  configure_file(hopper_candidate.cu.in ${file} @ONLY)
  list(APPEND candidate_sources ${file})
  string(APPEND candidate_rows "ANNULUS_HOPPER_CANDIDATE(${NAME}, ${HEAD_DIM})\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/hopper_candidates.inc CONTENT "${candidate_rows}")

add_library(hopper_candidates OBJECT ${candidate_sources})
target_link_libraries(hopper_candidates PRIVATE annulus_flags annulus_api CUDA::cudart_static)
target_include_directories(hopper_candidates PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(hopper_candidates SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_compile_options(hopper_candidates PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-Xptxas=-v>)
set_target_properties(hopper_candidates PROPERTIES CUDA_STANDARD 20
  CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES 90a-real CUDA_RUNTIME_LIBRARY Static
  RULE_LAUNCH_COMPILE "${PROJECT_SOURCE_DIR}/cmake/check_ptxas.sh")
