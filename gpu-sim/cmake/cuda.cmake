# The CUDA mapping: finds nvcc and adds the library sim_cuda, or leaves `sdpg_has_cuda` off.
# SDPG_CUDA=AUTO builds it where nvcc is found, ON insists, OFF leaves it out.
#
# nvcc is called directly: CMake of Debian 12 does not know which C++ the compilers of CUDA 13 speak.
# The runtime is linked statically and loads the driver when it is first called, so the same binary
# starts where there is no GPU.
set(SDPG_CUDA AUTO CACHE STRING "CUDA mapping: AUTO, ON or OFF")
set_property(CACHE SDPG_CUDA PROPERTY STRINGS AUTO ON OFF)
set(sdpg_has_cuda OFF)

if(NOT SDPG_CUDA STREQUAL "OFF")
  find_program(nvcc_program nvcc HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(nvcc_program)
    # Where the toolkit is, said by nvcc itself; it may be called through a wrapper.
    execute_process(
      COMMAND ${nvcc_program} --dryrun -c nothing.cu
      OUTPUT_VARIABLE said ERROR_VARIABLE said_too)
    string(REGEX MATCH "#\\$ TOP=([^\n]+)" top "${said}${said_too}")
    string(STRIP "${CMAKE_MATCH_1}" cuda_top)
    find_library(cudart_library cudart_static
      PATHS ${cuda_top} PATH_SUFFIXES lib64 lib targets/x86_64-linux/lib targets/sbsa-linux/lib
      NO_DEFAULT_PATH)
    find_path(cuda_include cuda_runtime.h
      PATHS ${cuda_top} PATH_SUFFIXES include targets/x86_64-linux/include
      NO_DEFAULT_PATH)
    if(cudart_library AND cuda_include)
      set(sdpg_has_cuda ON)
    endif()
  endif()
  if(SDPG_CUDA STREQUAL "ON" AND NOT sdpg_has_cuda)
    message(FATAL_ERROR
      "SDPG_CUDA is ON, and nvcc or its libcudart_static.a was not found; install the CUDA toolkit "
      "or set CUDA_HOME")
  endif()
endif()

if(sdpg_has_cuda)
  # Machine code of both architectures, and PTX of the newer for what comes after it.
  set(nvcc_flags
    -std=c++20 -O3 --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden
    -gencode=arch=compute_89,code=sm_89 -gencode=arch=compute_90,code=[sm_90,compute_90])
  set(nvcc_launcher)
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    set(nvcc_launcher ${CMAKE_CXX_COMPILER_LAUNCHER})
  endif()
  file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/cuda/*.cu)
  set(cuda_objects)
  foreach(source ${cuda_sources})
    get_filename_component(name ${source} NAME)
    # Pictures have the bits of a CPU's, which rounds products before it adds them.
    set(own_flags)
    if(name STREQUAL "picture.cu")
      set(own_flags --fmad=false)
    endif()
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    add_custom_command(
      OUTPUT ${object}
      COMMAND ${nvcc_launcher} ${nvcc_program} ${nvcc_flags} ${own_flags} -I${CMAKE_CURRENT_SOURCE_DIR}/src
              -MD -MT ${object} -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source}
      DEPFILE ${object}.d
      COMMENT "Building CUDA object ${name}.o"
      VERBATIM)
    list(APPEND cuda_objects ${object})
  endforeach()
  file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/cuda)
  add_library(sim_cuda STATIC ${cuda_objects})
  set_target_properties(sim_cuda PROPERTIES LINKER_LANGUAGE CXX)
  find_package(Threads REQUIRED)
  target_link_libraries(sim_cuda PUBLIC ${cudart_library} Threads::Threads ${CMAKE_DL_LIBS} rt)
endif()
