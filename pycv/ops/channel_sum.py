"""channel_sum: out[c] = sum of x[:, c, ...], the gradient of a bias."""

from torch import Tensor


def channel_sum(x: Tensor) -> Tensor:
    """Sum over everything but axis 1 of x (N, C, spatial...); returns (C)."""
    return x.sum([0, *range(2, x.dim())])
