"""``pycv demo``: LeNet-5 learns handwritten digits on pycv's kernels, and shows what it cost and what it learnt."""

from .run import main

__all__ = ["main"]
