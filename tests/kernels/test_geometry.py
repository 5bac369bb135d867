"""What is asked of a convolution's geometry, against a count of all pairs of element and window."""

import numpy as np

from pycv.kernels import _geometry

from ..seed import SEED


def counted(size: int, filter: int, out: int, stride: int, padding: int, dilation: int) -> bool:
    pairs = [(o * stride - padding + r * dilation, o) for o in range(out) for r in range(filter)]
    met = zip(*(pair for pair in pairs if 0 <= pair[0] < size), strict=True)
    return all(len(numbers) == max(numbers) - min(numbers) + 1 for numbers in map(set, met))


def test_all_read_as_counted():
    rng = np.random.default_rng(SEED)
    answers = []
    for _ in range(2000):
        size, filter, out, stride, padding, dilation = map(int, rng.integers(1, (14, 6, 9, 6, 8, 5)))
        axis = (size, filter, out, stride, padding, dilation)
        answers.append(counted(*axis))
        assert _geometry._all_read(*axis) == answers[-1], axis
    assert 200 < sum(answers) < 1800


def test_long_axes_are_answered_at_once():
    """Millions of pairs: as a list of them it took most of a minute."""
    assert _geometry._all_read(10**7, 9, 10**7 - 16, 1, 0, 2)
    assert not _geometry._all_read(10**7, 4, 10**7 // 8, 8, 0, 1)
