# Decides whether device "cuda" is built and for which architectures: sets tilefuse_cuda, enables the CUDA language.
# nvcc: the one of CUDA_HOME, of PATH, or of PyPI's packages nvidia-cuda-nvcc and nvidia-cuda-runtime.

set(tilefuse_cuda OFF)
string(TOUPPER "${TILEFUSE_CUDA}" choice)
if(choice STREQUAL "OFF")
  message(STATUS "tilefuse: device 'cuda' is not built (TILEFUSE_CUDA=OFF)")
  return()
elseif(NOT choice MATCHES "^(AUTO|ON)$")
  message(FATAL_ERROR "TILEFUSE_CUDA is '${TILEFUSE_CUDA}'; expected AUTO, ON or OFF")
endif()

# --- nvcc ------------------------------------------------------------------------------------------------------------
set(nvcc_folders "")
foreach(home IN ITEMS "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}")
  if(home)
    list(APPEND nvcc_folders "${home}/bin")
  endif()
endforeach()
find_program(TILEFUSE_NVCC nvcc HINTS ${nvcc_folders} DOC "The CUDA compiler")
if(NOT TILEFUSE_NVCC)
  execute_process(
      COMMAND "${Python_EXECUTABLE}" -c
              "import glob, sys; print(*(f for p in sys.path for f in sorted(glob.glob(p + '/nvidia/*/bin/nvcc'))), sep=';')"
      OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(found)
    list(GET found 0 found)
    set(TILEFUSE_NVCC "${found}" CACHE FILEPATH "The CUDA compiler" FORCE)
  endif()
endif()
if(NOT TILEFUSE_NVCC AND choice STREQUAL "ON")
  message(FATAL_ERROR "TILEFUSE_CUDA is ON, and there is no nvcc in CUDA_HOME, in PATH or in Python's packages. Install the "
                      "CUDA toolkit, or 'pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-cccl'; or set "
                      "TILEFUSE_CUDA=OFF")
endif()

# --- architectures ---------------------------------------------------------------------------------------------------
set(architectures "${TILEFUSE_CUDA_ARCHITECTURES}")
if(choice STREQUAL "ON")
  if(NOT architectures)
    set(architectures 75 80 86 89 90 100 120)
  endif()
else()
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE gpus RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(NOT status EQUAL 0 OR NOT gpus MATCHES "^[0-9]")
    set(gpus "")
  endif()
  if(NOT TILEFUSE_NVCC OR NOT gpus)
    set(missing "")
    if(NOT TILEFUSE_NVCC)
      list(APPEND missing "nvcc")
    endif()
    if(NOT gpus)
      list(APPEND missing "driver that answers nvidia-smi")
    endif()
    list(JOIN missing ", no " missing)
    message(STATUS "tilefuse: device 'cuda' is not built (TILEFUSE_CUDA=AUTO; found no ${missing})")
    return()
  endif()
  if(NOT architectures)
    string(REPLACE "." "" gpus "${gpus}")
    string(REGEX MATCHALL "[0-9]+" architectures "${gpus}")
    list(REMOVE_DUPLICATES architectures)
    list(SORT architectures COMPARE NATURAL)
  endif()
endif()

execute_process(COMMAND "${TILEFUSE_NVCC}" --list-gpu-arch OUTPUT_VARIABLE known OUTPUT_STRIP_TRAILING_WHITESPACE)
foreach(architecture IN LISTS architectures)
  if(NOT known MATCHES "compute_${architecture}(\n|$)")
    string(REGEX REPLACE "\n?compute_" " " known "${known}")
    message(FATAL_ERROR "${TILEFUSE_NVCC} cannot compile for architecture ${architecture}; it knows${known}. Take those that it "
                        "knows with TILEFUSE_CUDA_ARCHITECTURES, or a newer nvcc")
  endif()
endforeach()
list(JOIN architectures " " tilefuse_cuda_architectures)

# --- the language ----------------------------------------------------------------------------------------------------
list(TRANSFORM architectures APPEND "-real" OUTPUT_VARIABLE images)
list(GET architectures -1 last)
set(CMAKE_CUDA_ARCHITECTURES ${images} ${last}-virtual)
set(CMAKE_CUDA_COMPILER "${TILEFUSE_NVCC}")
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
set(tilefuse_cuda ON)
message(STATUS "tilefuse: device 'cuda' is built for ${tilefuse_cuda_architectures} and PTX ${last} by ${TILEFUSE_NVCC} "
               "${CMAKE_CUDA_COMPILER_VERSION}")
