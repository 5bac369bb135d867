// The kernels of mma_sync in bf16: gemm_mma.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_mma.h"

namespace pycv::cuda {

PYCV_GEMM_MMA(BfloatArithmetic)

}  // namespace pycv::cuda
