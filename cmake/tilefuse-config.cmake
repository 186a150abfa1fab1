# find_package(tilefuse CONFIG): the targets tilefuse::tilefuse (libtilefuse.so) and tilefuse::tilefuse_static
# (libtilefuse.a). The static one is there for projects with C++ that find OpenMP, both of which it links.
include("${CMAKE_CURRENT_LIST_DIR}/tilefuse-shared.cmake")
get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
if("CXX" IN_LIST languages)
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    include("${CMAKE_CURRENT_LIST_DIR}/tilefuse-static.cmake")
  endif()
endif()
