// The kernels of convolutions by mma_sync in fp16: conv_mma_kernel.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_mma_kernel.h"

namespace pycv::cuda {

PYCV_CONV_MMA(HalfArithmetic)

}  // namespace pycv::cuda
