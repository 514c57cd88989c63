# The reduced build of tools/gpu_check.sh: the core's and the renderer's CPU tables, the device, and the
# checker. No protobuf, gRPC or GoogleTest.
find_package(Threads REQUIRED)
set(SDPG_CUDA ON CACHE STRING "CUDA mapping" FORCE)
include(cmake/cuda.cmake)
file(GLOB check_sources
  src/core/kernels_*.cc src/core/select_kernels.cc src/core/model/flat_model.cc
  src/cuda/emulated_device.cc src/cuda/device_renderer.cc tools/gpu_check.cc)
file(GLOB check_renderer_sources
  src/render/renderer_*.cc src/render/select_renderer.cc src/render/make_frame.cc
  src/render/mesh.cc src/render/flat_scene.cc src/cuda/emulated_picture.cc)
list(APPEND check_sources ${check_renderer_sources})
if(NOT sdpg_has_avx)
  list(FILTER check_sources EXCLUDE REGEX "_avx(2|512)\\.cc$")
endif()
set_isa_flags(${check_sources})
set_property(SOURCE ${check_renderer_sources} APPEND PROPERTY COMPILE_OPTIONS -ffp-contract=off)
add_executable(gpu_check ${check_sources})
target_include_directories(gpu_check PRIVATE include src)
target_compile_options(gpu_check PRIVATE ${numeric_flags} ${warning_flags})
target_link_libraries(gpu_check PRIVATE sim_cuda Threads::Threads rt)
