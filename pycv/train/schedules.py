"""How the learning rate goes, as the share of the recipe's rate at every step; with one_cycle the momentum, too.

All but plateau are functions of the step alone, so that nothing of them is in a checkpoint.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from . import recipe


@dataclass
class Schedule(ABC):
    """``share(step)`` is multiplied with a linear rise over the first ``warm_up`` steps."""

    steps: int  # of the whole run
    epoch: int  # steps of one
    wanted: recipe.Schedule
    _warm_up: int = field(init=False)

    def __post_init__(self) -> None:
        self._warm_up = round(self.wanted.warm_up * self.epoch)

    def share(self, step: int) -> float:
        """Of the full rate, for the step with this number (from 0)."""
        if step < self._warm_up:
            return (step + 1) / self._warm_up * self.after_warm_up(0)
        return self.after_warm_up(step - self._warm_up)

    @abstractmethod
    def after_warm_up(self, step: int) -> float:
        """As :meth:`share`; the steps of the warm-up are not counted."""

    def momentum(self, step: int) -> float | None:
        """Of the step with this number, or None: that of the recipe's optimizer."""
        return None

    @property
    def left(self) -> int:
        """Steps after the warm-up."""
        return max(1, self.steps - self._warm_up)

    def validated(self, loss: float) -> None:  # noqa: B027
        """Hears the validation loss at the end of every epoch."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Takes up what :meth:`state_dict` gave."""


class Constant(Schedule):
    def after_warm_up(self, step: int) -> float:
        return 1.0


class Step(Schedule):
    """``factor`` once more at the end of each of the epochs ``milestones``, counted with the warm-up."""

    def after_warm_up(self, step: int) -> float:
        passed = sum(step + self._warm_up >= milestone * self.epoch for milestone in self.wanted.milestones)
        return self.wanted.factor**passed


class Cosine(Schedule):
    """Half a cosine from 1 to ``floor``: Loshchilov and Hutter, "SGDR", ICLR 2017, equation (5), without restarts."""

    def after_warm_up(self, step: int) -> float:
        return _half_cosine(step / self.left, self.wanted.floor)


class OneCycle(Schedule):
    """A straight rise over the share ``rise`` of the steps, then half a cosine down to ``floor``; the momentum is the
    mirror image of it, lowest where the rate is highest.

    After Smith and Topin, "Super-Convergence", 2017; the bounds of the momentum are those of torch's OneCycleLR.
    """

    def after_warm_up(self, step: int) -> float:
        return self._between(step, self.wanted.floor)

    def momentum(self, step: int) -> float | None:
        if not self.wanted.momentum:
            return None
        at_peak, at_rest = self.wanted.momentum
        return at_rest - (at_rest - at_peak) * self._between(max(0, step - self._warm_up), 0.0)

    def _between(self, step: int, floor: float) -> float:
        """From nearly 0 to 1, and down to ``floor``."""
        rise = max(1, int(self.left * self.wanted.rise))
        if step < rise:
            return (step + 1) / rise
        return _half_cosine((step - rise) / max(1, self.left - rise), floor)


@dataclass
class Plateau(Schedule):
    """``factor`` once more whenever the validation loss has not become lower for more than ``patience`` epochs."""

    best: float = math.inf
    waited: int = 0
    drops: int = 0

    def after_warm_up(self, step: int) -> float:
        return self.wanted.factor**self.drops

    def validated(self, loss: float) -> None:
        if loss < self.best:
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > self.wanted.patience:
            self.drops, self.waited = self.drops + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "drops": self.drops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.drops = state["best"], state["waited"], state["drops"]


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "plateau": Plateau,
    "cosine": Cosine,
    "one_cycle": OneCycle,
}


def build(wanted: recipe.Schedule, epochs: int, epoch: int) -> Schedule:
    """The schedule that a recipe names, over so many epochs of ``epoch`` steps.

    Raises
    ------
    ValueError
        If its lengths do not fit.
    """
    if wanted.name == "step" and not wanted.milestones:
        raise ValueError("schedule.milestones=[]: expected the epochs after which the rate drops")
    if wanted.warm_up >= epochs and wanted.warm_up > 0:
        raise ValueError(f"schedule.warm_up={wanted.warm_up}: expected fewer than the {epochs} epochs")
    if wanted.momentum and not (len(wanted.momentum) == 2 and 0 <= wanted.momentum[0] <= wanted.momentum[1] < 1):
        raise ValueError(
            f"schedule.momentum={list(wanted.momentum)}: expected its lowest and its highest, below 1, or []"
        )
    return SCHEDULES[wanted.name](epochs * epoch, epoch, wanted)


def _half_cosine(progress: float, floor: float) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
