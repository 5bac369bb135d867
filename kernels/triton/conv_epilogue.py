"""What follows the sums of a convolution's image (forward and grad_input): relu(sums + bias + residual), stored."""

from __future__ import annotations

import triton
import triton.language as tl

from .language import put


@triton.jit
def finish(
    sums, out, bias, residual, n, channel, position, here, there, out_n, out_c, out_p,
    residual_n, residual_c, residual_p, RELU: tl.constexpr,
):  # fmt: skip
    """``position`` counts within the image ``n``; ``here`` and ``there`` say which positions and channels there are."""
    if bias is not None:
        sums += tl.load(bias + channel, mask=there, other=0).to(sums.dtype)
    if residual is not None:
        at = residual + n * residual_n + channel * residual_c + position * residual_p
        sums += tl.load(at, mask=here & there, other=0).to(sums.dtype)
    if RELU:
        sums = tl.where(sums < 0, 0.0, sums)
    put(out + n * out_n + channel * out_c + position * out_p, sums, here & there)
