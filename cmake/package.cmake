# What `cmake --install` puts down: one library made of the objects of all layers, its public
# headers, the command and its launchers, configurations and documents. Tests link the layers.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(layers annulus_base annulus_comm annulus_kernels annulus_attention annulus_moe_kernels annulus_moe
  annulus_cost annulus)
if(ANNULUS_HAS_CUDA)
  list(APPEND layers annulus_kernels_cuda annulus_kernels_sm90 annulus_row_kernels_cuda annulus_execute_cuda
    annulus_pack_cuda annulus_moe_kernels_cuda annulus_moe_kernels_sm90)
endif()
set(objects ${layers})
list(TRANSFORM objects REPLACE "(.+)" "$<TARGET_OBJECTS:\\1>")
if(BUILD_SHARED_LIBS)
  add_library(annulus_package SHARED ${objects})
  # Third parties stay inside: consumers need neither their headers nor their packages.
  set(third_parties Threads::Threads $<BUILD_INTERFACE:${ANNULUS_FMT}> $<BUILD_INTERFACE:${ANNULUS_SPDLOG}>
    $<BUILD_INTERFACE:hwy::hwy>)
  if(MPI_CXX_FOUND)
    list(APPEND third_parties $<BUILD_INTERFACE:MPI::MPI_CXX>)
  endif()
  set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
  target_link_options(annulus_package PRIVATE -Wl,--no-undefined -Wl,--version-script=${exports})
  set_target_properties(annulus_package PROPERTIES LINK_DEPENDS ${exports})
else()
  add_library(annulus_package STATIC ${objects})
  set(third_parties Threads::Threads fmt::fmt spdlog::spdlog hwy::hwy)
  set(pc_requires "fmt spdlog libhwy")
  if(MPI_CXX_FOUND)
    string(APPEND pc_requires " ompi")
    list(APPEND third_parties MPI::MPI_CXX)
  endif()
endif()
if(ANNULUS_HAS_CUDA)
  if(BUILD_SHARED_LIBS)
    list(APPEND third_parties $<BUILD_INTERFACE:CUDA::cudart_static>)
  else()
    list(APPEND third_parties CUDA::cudart_static)
  endif()
  set_target_properties(annulus_package PROPERTIES CUDA_RUNTIME_LIBRARY Static)
endif()
target_link_libraries(annulus_package PRIVATE ${third_parties} $<BUILD_INTERFACE:annulus_flags>)
target_include_directories(annulus_package INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_compile_features(annulus_package INTERFACE cxx_std_20)
# Before 1.0 a minor version may break the binary interface.
set_target_properties(annulus_package PROPERTIES
  OUTPUT_NAME annulus EXPORT_NAME annulus LINKER_LANGUAGE CXX
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/lib)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/annulus)
install(TARGETS annulus_package EXPORT annulusTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT annulusTargets NAMESPACE annulus:: DESTINATION ${package_dir})
configure_package_config_file(cmake/annulusConfig.cmake.in ${PROJECT_BINARY_DIR}/annulusConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/annulusConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/annulusConfig.cmake ${PROJECT_BINARY_DIR}/annulusConfigVersion.cmake
  DESTINATION ${package_dir})
# The prefix is found from where the file lies, so that an installed tree may be moved.
file(RELATIVE_PATH pc_prefix /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
configure_file(cmake/annulus.pc.in ${PROJECT_BINARY_DIR}/annulus.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/annulus.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(DIRECTORY runtime/include/annulus DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS annulus_command RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(PROGRAMS launch/run DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME annulus-run)
install(PROGRAMS launch/slurm DESTINATION ${CMAKE_INSTALL_BINDIR} RENAME annulus-slurm)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/annulus)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES README.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
