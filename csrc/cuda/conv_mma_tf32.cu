// The kernels of convolutions by mma_sync in tf32: conv_mma_kernel.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_mma_kernel.h"

namespace pycv::cuda {

PYCV_CONV_MMA(Tf32Arithmetic)

}  // namespace pycv::cuda
