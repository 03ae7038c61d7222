# The instantiations of the Hopper kernels, one .cu and one row for hopper.cpp or
# hopper_backward.cpp each; softcap or not, and backward the order of dQ, inside: type, head dim,
# head dim of values. What backward lacks goes to flash2 and, behind it, the plain path.
# ci: what CI compiles.
set(ANNULUS_HOPPER_forward_full "bf16 128 128" "f16 128 128" "bf16 64 64" "f16 64 64"
  "bf16 96 96" "f16 96 96" "bf16 192 128" "f16 192 128" "bf16 192 192" "f16 192 192"
  "bf16 256 256" "f16 256 256")
set(ANNULUS_HOPPER_backward_full "bf16 128 128" "f16 128 128" "bf16 64 64" "f16 64 64"
  "bf16 96 96" "f16 96 96" "bf16 192 128" "f16 192 128" "bf16 192 192" "f16 192 192"
  "bf16 256 256" "f16 256 256")
set(ANNULUS_HOPPER_forward_ci "bf16 128 128" "bf16 192 128")
set(ANNULUS_HOPPER_backward_ci "bf16 128 128" "bf16 192 128")

set(ANNULUS_HOPPER_SOURCES "")
foreach(pass forward backward)
  set(rows "")
  foreach(variant ${ANNULUS_HOPPER_${pass}_${ANNULUS_KERNEL_SET}})
    separate_arguments(parts UNIX_COMMAND "${variant}")
    string(REPLACE " " "_" NAME "${variant}")
    list(GET parts 0 DTYPE)
    list(REMOVE_AT parts 0)
    list(JOIN parts ", " DIMS)
    if(DTYPE STREQUAL "bf16")
      set(ELEMENT "Bf16")
    else()
      set(ELEMENT "Half")
    endif()
    set(file ${CMAKE_CURRENT_BINARY_DIR}/hopper_${pass}_${NAME}.cu)
    configure_file(${pass}.cu.in ${file} @ONLY)
    list(APPEND ANNULUS_HOPPER_SOURCES ${file})
    string(APPEND rows "ANNULUS_HOPPER_VARIANT(${DTYPE}, ${DIMS})\n")
  endforeach()
  file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/hopper_${pass}_variants.inc CONTENT "${rows}")
endforeach()
