// The kernels of mma_sync in fp16: gemm_mma.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_mma.h"

namespace pycv::cuda {

PYCV_GEMM_MMA(HalfArithmetic)

}  // namespace pycv::cuda
