// The kernels of mma_sync in 3xTF32: gemm_mma.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_mma.h"

namespace pycv::cuda {

PYCV_GEMM_MMA(Tf32x3Arithmetic)

}  // namespace pycv::cuda
