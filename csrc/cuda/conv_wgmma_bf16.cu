// The kernels of conv's wgmma in bf16: conv_wgmma.h, conv_wgmma_phases.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_wgmma_phases.h"

namespace pycv::cuda {

PYCV_CONV_WGMMA(BfloatArithmetic)
PYCV_CONV_WGMMA_PHASES(BfloatArithmetic)

}  // namespace pycv::cuda
