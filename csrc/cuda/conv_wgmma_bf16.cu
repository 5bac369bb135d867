// The kernels of conv's wgmma in bf16: conv_wgmma.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_wgmma.h"

namespace pycv::cuda {

PYCV_CONV_WGMMA(BfloatArithmetic)

}  // namespace pycv::cuda
