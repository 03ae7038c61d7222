# annulus_candidates(library TEMPLATE file.cu.in [RIGHT "name dim" ...] [WRONG "name dim" ...]): an
# object library of candidates for a Hopper kernel, one .cu each, and library.inc with a line
# ANNULUS_HOPPER_CANDIDATE(name, dim, checked) for each. WRONG: timed alone, wrong on purpose or
# traced. Spills and serialised products end the build, as in the library.
function(annulus_candidates library)
  cmake_parse_arguments(ARG "" "TEMPLATE" "RIGHT;WRONG" ${ARGN})
  foreach(candidate ${ARG_RIGHT} ${ARG_WRONG})
    set(checked true)
    if(candidate IN_LIST ARG_WRONG)
      set(checked false)
    endif()
    separate_arguments(parts UNIX_COMMAND "${candidate}")
    list(GET parts 0 NAME)
    list(GET parts 1 HEAD_DIM)
    set(file ${CMAKE_CURRENT_BINARY_DIR}/${library}_${NAME}_${HEAD_DIM}.cu)
    configure_file(${ARG_TEMPLATE} ${file} @ONLY)
    list(APPEND sources ${file})
    string(APPEND rows "ANNULUS_HOPPER_CANDIDATE(${NAME}, ${HEAD_DIM}, ${checked})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${library}.inc CONTENT "${rows}")
  add_library(${library} OBJECT ${sources})
  target_link_libraries(${library} PRIVATE annulus_flags annulus_api CUDA::cudart_static)
  target_include_directories(${library} PRIVATE ${PROJECT_SOURCE_DIR})
  target_include_directories(${library} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_options(${library} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-Xptxas=-v>)
  set_target_properties(${library} PROPERTIES CUDA_STANDARD 20
    CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES 90a-real CUDA_RUNTIME_LIBRARY Static
    RULE_LAUNCH_COMPILE "${PROJECT_SOURCE_DIR}/cmake/check_ptxas.sh")
endfunction()

# The kernel set ci has one of each, so that their code stays alive. traced at 64 has its products
# serialised.
if(ANNULUS_KERNEL_SET STREQUAL "ci")
  annulus_candidates(hopper_candidates TEMPLATE hopper_candidate.cu.in RIGHT "wide_turns 128")
  annulus_candidates(hopper_backward_candidates TEMPLATE hopper_backward_candidate.cu.in
    WRONG "no_additions 128")
else()
  annulus_candidates(hopper_candidates TEMPLATE hopper_candidate.cu.in
    RIGHT "queries 128" "short 128" "short_none 128" "short_early 128" "early 128" "wide_turns 128" "three_none 64"
    "early 64" "turns 96" "early 96" "turns 192" "early 256"
    WRONG "traced_wide 128" "traced 128" "traced 192")
  annulus_candidates(hopper_backward_candidates TEMPLATE hopper_backward_candidate.cu.in
    WRONG "traced 128" "traced_turned 192" "traced_wide 256" "no_additions 128" "no_additions 64"
    "no_additions_turned 192" "no_additions_wide 256")
endif()
