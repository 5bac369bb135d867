// The kernels of wgmma_3_persistent in bf16: gemm_wgmma_3_persistent.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_wgmma_3_persistent.h"

namespace pycv::cuda {

PYCV_GEMM_WGMMA_3(BfloatArithmetic)

}  // namespace pycv::cuda
