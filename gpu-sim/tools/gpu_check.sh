#!/bin/sh
# Builds what checks the CUDA mapping and runs it: parity with the CPU on four compiled models,
# determinism, faults, memory, speed; the same pixels as the CPU's, frames a second. Run it on a
# machine with a GPU; it needs nvcc, CMake and a C++ compiler, nothing else.
#   gpu-sim/tools/gpu_check.sh [--seconds S]
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
build=${SDPG_CUDA_CHECK_BUILD:-$here/../build/gpu-check}
cmake -S "$here" -B "$build" -DSDPG_CUDA_CHECK=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >"${TMPDIR:-/tmp}/gpu_check.configure.log" 2>&1 || {
  cat "${TMPDIR:-/tmp}/gpu_check.configure.log" >&2
  exit 1
}
cmake --build "$build" --target gpu_check --parallel "$(nproc)"
exec "$build/gpu_check" "$@" "$here/tests/data"
