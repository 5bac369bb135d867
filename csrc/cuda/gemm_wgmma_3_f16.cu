// The kernels of wgmma_3_persistent in f16: gemm_wgmma_3_persistent.h, gemm_wgmma_3_gathered.h.
// Tuned: no kernel of this file may spill registers.
#include "gemm_wgmma_3_gathered.h"

namespace pycv::cuda {

PYCV_GEMM_WGMMA_3(HalfArithmetic)
PYCV_GEMM_WGMMA_3_GATHERED(HalfArithmetic)

}  // namespace pycv::cuda
