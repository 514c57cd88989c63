// The core compiled for the baseline of the machine's architecture (16-byte vectors).
#define SDPG_ISA generic
#include "core/kernels_table.h"
#include "core/tables.h"

namespace sdpg::core {

const Kernels kGenericFloat32 = make_table<Pack<float, 4>>("generic");
const Kernels kGenericFloat64 = make_table<Pack<double, 2>>("generic");

}  // namespace sdpg::core
