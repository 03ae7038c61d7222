# Candidates for the backward (tests/support/hopper_backward_candidates.h) as CUDA sources, one .cu a
# head dim; ci compiles one. wrong: timed alone, wrong on purpose or traced.
# delayed: at head dim 64 it spills.
set(right "copies 128" "boxes 128" "boxes 64" "delayed 128" "delayed_copies 128" "delayed_boxes 128")
# traced: head dim 128 of the default alone, for at 64 ptxas serialises products.
set(wrong "traced 128" "traced_copies 128" "traced_copies 64" "traced_delayed 128"
  "delayed_no_additions 128" "no_additions 128" "no_additions 64"
  "stores 128" "stores 64" "no_exponentials 128" "no_exponentials 64" "no_meeting 128" "no_meeting 64")
if(ANNULUS_KERNEL_SET STREQUAL "ci")
  set(right "delayed_boxes 128")
  set(wrong "")
endif()

set(backward_sources "")
set(backward_rows "")
foreach(candidate ${right} ${wrong})
  set(checked true)
  if(candidate IN_LIST wrong)
    set(checked false)
  endif()
  separate_arguments(parts UNIX_COMMAND "${candidate}")
  list(GET parts 0 NAME)
  list(GET parts 1 HEAD_DIM)
  set(file ${CMAKE_CURRENT_BINARY_DIR}/hopper_backward_${NAME}_${HEAD_DIM}.cu)
  configure_file(hopper_backward_candidate.cu.in ${file} @ONLY)
  list(APPEND backward_sources ${file})
  string(APPEND backward_rows "ANNULUS_HOPPER_BACKWARD_CANDIDATE(${NAME}, ${HEAD_DIM}, ${checked})\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/hopper_backward_candidates.inc
  CONTENT "${backward_rows}")

add_library(hopper_backward_candidates OBJECT ${backward_sources})
target_link_libraries(hopper_backward_candidates PRIVATE annulus_flags annulus_api CUDA::cudart_static)
target_include_directories(hopper_backward_candidates PRIVATE ${PROJECT_SOURCE_DIR})
target_include_directories(hopper_backward_candidates SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_compile_options(hopper_backward_candidates PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo;-Xptxas=-v>)
set_target_properties(hopper_backward_candidates PROPERTIES CUDA_STANDARD 20
  CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES 90a-real CUDA_RUNTIME_LIBRARY Static
  RULE_LAUNCH_COMPILE "${PROJECT_SOURCE_DIR}/cmake/check_ptxas.sh")
