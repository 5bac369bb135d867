// The kernels of implicit_gemm for grad_weight: conv_tile_kernel.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_tile_kernel.h"

namespace pycv::cuda {

template <class T>
void launch_grad_weight_tiles(const ConvTiles<T>& tiles, Stream stream) {
    launch_tiles<true>(tiles, stream);
}

template void launch_grad_weight_tiles(const ConvTiles<float>&, Stream);
template void launch_grad_weight_tiles(const ConvTiles<double>&, Stream);
template void launch_grad_weight_tiles(const ConvTiles<half>&, Stream);
template void launch_grad_weight_tiles(const ConvTiles<bfloat16>&, Stream);

}  // namespace pycv::cuda
