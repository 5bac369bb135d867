// The kernels of conv's wgmma in tf32: conv_wgmma.h, conv_wgmma_phases.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_wgmma_phases.h"

namespace pycv::cuda {

PYCV_CONV_WGMMA(Tf32Arithmetic)
PYCV_CONV_WGMMA_PHASES(Tf32Arithmetic)

}  // namespace pycv::cuda
