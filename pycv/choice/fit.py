"""Constants of the cost model from measured times: least squares on log(predicted / measured), so that half as much and
twice as much are equally wrong; no constant below zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

PRIOR_WEIGHT = 1e-4  # how much the guess for a constant counts beside one measured time: it may be far off
RELATED_WEIGHT = 0.1  # the same of a constant that all groups of a kernel have together
OUTLIER = 0.3  # a logarithm beyond which a measured time counts less and less
LEAST = 1e-3  # of the measured time: what a prediction is taken for if it is less
ROUNDS = 12


@dataclass(frozen=True)
class Fit:
    """Constants in seconds per unit of each feature, and the relative errors |predicted / measured - 1| they leave."""

    constants: dict[str, float]
    errors: tuple[float, ...]

    @property
    def median_error(self) -> float:
        return float(np.median(self.errors))

    @property
    def worst_error(self) -> float:
        return max(self.errors)


def nnls(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimises |a x - b|: Lawson and Hanson, Solving Least Squares Problems, 23."""
    count = a.shape[1]
    x, free = np.zeros(count), np.zeros(count, bool)
    for _ in range(3 * count + 10):
        gradient = np.where(free, -np.inf, a.T @ (b - a @ x))
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-10 * max(1.0, float(np.abs(b).max(initial=0.0))):
            break
        free[best] = True
        while True:
            trial = np.zeros(count)
            trial[free] = np.linalg.lstsq(a[:, free], b, rcond=None)[0]
            negative = free & (trial <= 0)
            if not negative.any():
                break
            step = np.min(x[negative] / np.maximum(x[negative] - trial[negative], 1e-300))
            x = x + step * (trial - x)
            free &= x > 1e-15
            x[~free] = 0.0
            if not free.any():
                break
        x = trial if free.any() else x
    return x


Samples = Sequence[tuple[Mapping[str, float], float]]  # features and measured seconds


def fit(
    samples: Samples,
    guess: Mapping[str, float],
    least: Mapping[str, float] | None = None,
    prior_weight: float = PRIOR_WEIGHT,
) -> Fit:
    """The constants for which sum(constant * feature) comes closest to the measured seconds of ``samples``.

    ``guess`` holds a constant for each feature that may occur; it counts ``prior_weight`` times as much as a sample.
    Features are scaled by it, and each row by its measured time, so that a microsecond and a second count alike. No
    constant is below its ``least`` (0): few samples explain one feature by another, and beyond them go wrong without
    bound.
    """
    names = list(guess)
    scale = np.array([max(guess[name], 1e-18) for name in names])
    rows = np.array([[features.get(name, 0.0) for name in names] for features, _ in samples], float)
    measured = np.array([seconds for _, seconds in samples], float)
    a = rows * scale / measured[:, None]
    present = a.max(axis=0, initial=0.0) > 0
    a = a[:, present]
    least = least or {}
    bounds = (np.array([least.get(name, 0.0) for name in names]) / scale)[present]
    prior = np.eye(a.shape[1]) * prior_weight
    x = bounds
    ratios = np.ones(len(measured))
    for _ in range(ROUNDS):  # iteratively reweighted
        weights = _weights(ratios)
        system = np.vstack([a * weights[:, None], prior])
        target = np.concatenate([weights, np.full(a.shape[1], prior_weight)])
        x = bounds + nnls(system, target - system @ bounds)
        ratios = np.maximum(a @ x, LEAST)
    errors = np.abs(a @ x - 1)
    constants = x * scale[present]
    kept = [name for name, there in zip(names, present, strict=True) if there]
    return Fit({name: float(c) for name, c in zip(kept, constants, strict=True)}, tuple(map(float, errors)))


def fit_related(
    groups: Mapping[str, Samples], guess: Mapping[str, float], least: Mapping[str, float] | None = None
) -> dict[str, Fit]:
    """A fit for each group: what its own samples leave open, those of all groups together decide."""
    together = fit([sample for samples in groups.values() for sample in samples], guess, least).constants
    # A constant of nothing has no scale.
    nearer = {name: max(together.get(name, value), LEAST * value) for name, value in guess.items()}
    return {name: fit(samples, nearer, least, RELATED_WEIGHT) for name, samples in groups.items()}


def _weights(ratios: np.ndarray) -> np.ndarray:
    """Those with which the squares of ratio - 1 pull like the squares of its logarithm; beyond OUTLIER like its
    magnitude (Huber's loss)."""
    logs, distances = np.log(ratios), ratios - 1
    near = np.abs(distances) < 1e-9
    pull = np.where(near, 1.0, logs / np.where(near, 1.0, distances)) / ratios
    return np.sqrt(pull * np.minimum(1.0, OUTLIER / np.maximum(np.abs(logs), 1e-12)))
