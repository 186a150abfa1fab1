# Installs the C library with its headers and what find_package(tilefuse) reads: into the prefix, or, with the Python
# package, into its folder.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(SKBUILD)
  set(library_folder tilefuse/lib)
  set(include_folder tilefuse/include)
else()
  set(library_folder ${CMAKE_INSTALL_LIBDIR})
  set(include_folder ${CMAKE_INSTALL_INCLUDEDIR})
  # (Not in a wheel, where links become copies.)
  set_target_properties(tilefuse PROPERTIES
      VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endif()
set(config_folder ${library_folder}/cmake/tilefuse)

install(DIRECTORY csrc/include/tilefuse DESTINATION ${include_folder} PATTERN mlp.h EXCLUDE)  # of CUDA devices alone
set_target_properties(tilefuse_cpu PROPERTIES OUTPUT_NAME tilefuse EXPORT_NAME tilefuse_static)
set(kinds shared static)
set(targets tilefuse tilefuse_cpu)
foreach(kind target IN ZIP_LISTS kinds targets)
  target_compile_features(${target} INTERFACE c_std_11)
  install(TARGETS ${target} EXPORT tilefuse-${kind} DESTINATION ${library_folder} INCLUDES DESTINATION ${include_folder})
  install(EXPORT tilefuse-${kind} NAMESPACE tilefuse:: DESTINATION ${config_folder})
endforeach()

write_basic_package_version_file(${PROJECT_BINARY_DIR}/tilefuse-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/tilefuse-config.cmake ${PROJECT_BINARY_DIR}/tilefuse-config-version.cmake DESTINATION ${config_folder})
