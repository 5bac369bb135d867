// The kernels of implicit_gemm for forward and grad_input: conv_tile_kernel.h.
// Tuned: no kernel of this file may spill registers.
#include "conv_tile_kernel.h"

namespace pycv::cuda {

template <class T>
void launch_gather_tiles(const ConvTiles<T>& tiles, Stream stream) {
    launch_tiles<false>(tiles, stream);
}

template void launch_gather_tiles(const ConvTiles<float>&, Stream);
template void launch_gather_tiles(const ConvTiles<double>&, Stream);
template void launch_gather_tiles(const ConvTiles<half>&, Stream);
template void launch_gather_tiles(const ConvTiles<bfloat16>&, Stream);

}  // namespace pycv::cuda
