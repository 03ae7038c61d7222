# The instantiations of flash2 on tensor cores: one .cu and one dispatch row each. Whatever is not
# in the table goes the plain path. ci: what CI compiles, every kernel file once.
set(ANNULUS_FLASH2_VARIANTS_full
  "bf16 128 forward" "bf16 128 backward" "f16 128 forward" "f16 128 backward"
  "bf16 64 forward" "bf16 64 backward" "f16 64 forward" "f16 64 backward")
set(ANNULUS_FLASH2_VARIANTS_ci "bf16 128 forward" "bf16 64 backward")

# Without a GPU at hand nobody needs all of them.
find_program(ANNULUS_NVIDIA_SMI nvidia-smi)
set(kernel_set ci)
if(ANNULUS_NVIDIA_SMI)
  set(kernel_set full)
endif()
set(ANNULUS_KERNEL_SET ${kernel_set} CACHE STRING "CUDA instantiations: ci or full")
if(NOT DEFINED ANNULUS_FLASH2_VARIANTS_${ANNULUS_KERNEL_SET})
  message(FATAL_ERROR "ANNULUS_KERNEL_SET is ci or full, not ${ANNULUS_KERNEL_SET}")
endif()
message(STATUS "CUDA kernel set: ${ANNULUS_KERNEL_SET}")

set(ANNULUS_VARIANT_SOURCES "")
set(variant_rows "")
foreach(variant ${ANNULUS_FLASH2_VARIANTS_${ANNULUS_KERNEL_SET}})
  separate_arguments(parts UNIX_COMMAND "${variant}")
  list(GET parts 0 DTYPE)
  list(GET parts 1 HEAD_DIM)
  list(GET parts 2 DIRECTION)
  if(DTYPE STREQUAL "bf16")
    set(ELEMENT "__nv_bfloat16")
  else()
    set(ELEMENT "__half")
  endif()
  set(file ${CMAKE_CURRENT_BINARY_DIR}/flash2_${DIRECTION}_${DTYPE}_hd${HEAD_DIM}.cu)
  configure_file(flash2_${DIRECTION}.cu.in ${file} @ONLY)
  list(APPEND ANNULUS_VARIANT_SOURCES ${file})
  string(APPEND variant_rows
    "ANNULUS_FLASH2_${DIRECTION}(${DTYPE}, ${HEAD_DIM})\n")
endforeach()
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/flash2_variants.inc CONTENT "${variant_rows}")
