# pip builds with pybind11 in a folder of another name each time, which would compile all that includes it again. With
# its headers in the build folder the commands stay, and so do the objects.
file(GLOB_RECURSE headers RELATIVE ${pybind11_INCLUDE_DIR} ${pybind11_INCLUDE_DIR}/pybind11/*.h)
foreach(header IN LISTS headers)
  set(copy ${PROJECT_BINARY_DIR}/include/${header})
  cmake_path(GET copy PARENT_PATH folder)
  file(MAKE_DIRECTORY ${folder})
  file(COPY_FILE ${pybind11_INCLUDE_DIR}/${header} ${copy} ONLY_IF_DIFFERENT)
endforeach()
set_property(TARGET pybind11::pybind11_headers PROPERTY INTERFACE_INCLUDE_DIRECTORIES ${PROJECT_BINARY_DIR}/include)
