// How a function of the pipeline is declared, on a CPU and under nvcc.
// SDPG_INLINE: a leaf, part of its caller. SDPG_RARE: large and seldom called, never part of it.
// SDPG_FN: any other; under nvcc a function of its own, because one kernel with everything in it
// takes minutes to compile.
#pragma once

#if defined(__CUDACC__)
#define SDPG_INLINE __host__ __device__ __forceinline__
#define SDPG_FN __host__ __device__ __noinline__ inline
#define SDPG_RARE __host__ __device__ __noinline__ inline
#else
#define SDPG_INLINE inline __attribute__((always_inline))
#define SDPG_FN inline
#define SDPG_RARE inline __attribute__((noinline))
#endif
