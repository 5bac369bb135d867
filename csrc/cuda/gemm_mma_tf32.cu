// The kernels of mma_sync in tf32: gemm_mma.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_mma.h"

namespace pycv::cuda {

PYCV_GEMM_MMA(Tf32Arithmetic)

}  // namespace pycv::cuda
